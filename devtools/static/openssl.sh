#!/bin/sh
# OpenSSL, as static libraries, with what a TLS client needs today.
set -eu

# A static program cannot load anything later: no modules, no engines.
LOADABLE="no-shared no-pic no-module no-engine no-dso no-autoload-config no-afalgeng no-devcryptoeng no-padlockeng"
PROGRAMS="no-apps no-docs no-tests no-ui-console"
PROTOCOLS="no-ssl3 no-ssl3-method no-dtls no-quic no-srp no-srtp no-comp no-http no-ct no-cmp no-cms no-ts no-rfc3779 no-async"
# None of these is in a cipher suite that Python's ssl offers.
CIPHERS="no-legacy no-weak-ssl-ciphers no-aria no-bf no-camellia no-cast no-idea no-seed no-rc2 no-rc4 no-rc5 no-gost no-siv no-ocb"
CIPHERS="$CIPHERS no-md4 no-mdc2 no-rmd160 no-whirlpool no-sm2 no-sm3 no-sm4 no-slh-dsa no-ec2m"

dpkg-source --no-check -x "$SOURCES"/openssl_*.dsc source
cd source
# The folders are those of the image where it will run. 64-bit curves: three times as fast.
# shellcheck disable=SC2086  # lists of words
./Configure "linux-$(uname -m)" CC=x-musl-gcc \
    CFLAGS="-O2 -fno-pie -ffunction-sections -fdata-sections" \
    --prefix=/usr --libdir=lib --openssldir=/etc/ssl \
    enable-ec_nistp_64_gcc_128 $LOADABLE $PROGRAMS $PROTOCOLS $CIPHERS
make -j"$JOBS" build_libs
make install_dev DESTDIR="$PREFIX"
cd ..
rm -r source
