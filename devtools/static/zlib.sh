#!/bin/sh
# zlib, as a static library.
set -eu

dpkg-source --no-check -x "$SOURCES"/zlib_*.dsc source
cd source
CC=x-musl-gcc CFLAGS="-O3 -fno-pie -ffile-prefix-map=$PWD=zlib" ./configure --static --prefix="$PREFIX"
make -j"$JOBS" libz.a
make install
cd ..
rm -r source
