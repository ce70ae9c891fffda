#!/bin/sh
# Raspberry Pi 5: both formats, of which it takes the faster at its first load. Or: raspberry-pi-4, raspberry-pi-zero-2-w
model=${1:?MODEL OUT [options of edgelm export]} out=${2:?MODEL OUT [options of edgelm export]}
shift 2
exec edgelm export "$model" --out "$out" --device raspberry-pi-5 --precision int8-dynamic "$@"
