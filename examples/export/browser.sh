#!/bin/sh
# A browser, by onnxruntime-web: ONNX alone, in int8, since it is downloaded.
model=${1:?MODEL OUT [options of edgelm export]} out=${2:?MODEL OUT [options of edgelm export]}
shift 2
exec edgelm export "$model" --out "$out" --device browser-wasm --precision int8-dynamic "$@"
