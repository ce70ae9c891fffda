#!/bin/sh
# Any x86-64 server: ONNX alone, which takes any batch and length. Where all have VNNI: x86_64-avx512-vnni
model=${1:?MODEL OUT [options of edgelm export]} out=${2:?MODEL OUT [options of edgelm export]}
shift 2
exec edgelm export "$model" --out "$out" --device generic-x86_64 --format onnx --lengths 16,32,64,128,256,512 "$@"
