#!/bin/sh
# Android on 64-bit ARM, by LiteRT in an app: TFLite alone. A phone with Cortex-A53 alone: android-cortex-a53
model=${1:?MODEL OUT [options of edgelm export]} out=${2:?MODEL OUT [options of edgelm export]}
shift 2
exec edgelm export "$model" --out "$out" --device google-pixel-8 --format tflite --precision int8-dynamic "$@"
