#!/bin/sh
# The C library, and bin/x-musl-gcc: the machine's gcc, compiling for it.
set -eu

dpkg-source --no-check -x "$SOURCES"/musl_*.dsc source
(
    cd source
    ./configure --prefix="$PREFIX" --syslibdir="$PREFIX/lib" --disable-shared --enable-wrapper=gcc CFLAGS=-O2
    make -j"$JOBS"
    make install
)
rm -r source

# The kernel's headers belong to no C library; musl-gcc looks only into its own folder.
for folder in linux asm-generic mtd; do
    ln -s "/usr/include/$folder" "$PREFIX/include/$folder"
done
ln -s "/usr/include/$(gcc -dumpmachine)/asm" "$PREFIX/include/asm"

# CPython's configure asks the compiler for the platform, and gcc would name the C library it was
# built for. It also wants "gcc" in the compiler's name: else it drops the flags for PGO.
cat > "$PREFIX/bin/x-musl-gcc" <<'END'
#!/bin/sh
if [ "$*" = --print-multiarch ]; then
    echo "$(uname -m)-linux-musl"
else
    exec "${0%/*}/musl-gcc" "$@"
fi
END
chmod +x "$PREFIX/bin/x-musl-gcc"
