#!/bin/sh
# Jetson Orin Nano, on its CPU: both formats, of which it takes the faster at its first load. Another: jetson-nano
model=${1:?MODEL OUT [options of edgelm export]} out=${2:?MODEL OUT [options of edgelm export]}
shift 2
exec edgelm export "$model" --out "$out" --device jetson-orin-nano --precision int8-dynamic "$@"
