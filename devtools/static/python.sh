#!/bin/sh
# CPython: the interpreter "python" and libpython3.13.a, every C module of it linked in.
set -eu

# Debian's tree has a configure that does not fit its Makefile. So: the release as it came, and of
# Debian's patches those that close holes and crashes.
mkdir source debian
tar --extract --strip-components=1 --directory source --file "$SOURCES"/python3.13_*.orig.tar.xz
tar --extract --directory debian --file "$SOURCES"/python3.13_*.debian.tar.xz
grep -E '^(CVE-|ssl-|dict-use-after-free|traverse-managed-dicts|issue127330)' debian/debian/patches/series |
    while read -r patch; do
        patch --silent --strip=1 --no-backup-if-mismatch --directory=source < "debian/debian/patches/$patch"
    done

# Modules that would need another library, and those that rapid has no use for.
for module in _bz2 _ctypes _ctypes_test _curses _curses_panel _dbm _gdbm _lzma _sqlite3 _tkinter _uuid readline \
    _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw _multibytecodec \
    _elementtree _interpchannels _interpqueues _interpreters _lsprof _scproxy _statistics _zoneinfo \
    pyexpat syslog xxlimited xxlimited_35; do
    export "py_cv_module_$module=n/a"
done

mkdir build
cd build
# -no-pie: nothing to relocate when it starts. stack-size: musl gives a thread 128 KiB, which a deep
# recursion in Python overruns. gc-sections, after the two -f...-sections: what nobody calls goes.
MODULE_BUILDTYPE=static ../source/configure CC=x-musl-gcc AR=gcc-ar RANLIB=gcc-ranlib PKG_CONFIG=false \
    CFLAGS="-O3 -g0 -fno-pie -ffunction-sections -fdata-sections -ffile-prefix-map=$PREFIX=python" \
    CPPFLAGS="-I$ZLIB/include" LDFLAGS="-static -no-pie -Wl,-z,stack-size=2097152 -Wl,--gc-sections" LINKFORSHARED=" " \
    ZLIB_CFLAGS="-I$ZLIB/include" ZLIB_LIBS="-L$ZLIB/lib -lz" --with-openssl="$OPENSSL/usr" \
    --prefix=/nonexistent --disable-shared --disable-test-modules --with-ensurepip=no \
    ac_cv_file__dev_ptmx=yes ac_cv_file__dev_ptc=no
for module in _ssl _hashlib zlib; do
    grep -q "^MODULE_$(echo "$module" | tr '[:lower:]' '[:upper:]')_STATE=yes" Makefile || {
        echo "configure left out the module $module" >&2
        exit 1
    }
done

flags=
if [ "$PGO" = 1 ]; then
    # Twice: once to count what is run while rapid serves calls, then to compile for that.
    counting="-fprofile-generate -fprofile-update=prefer-atomic"
    make -j"$JOBS" python CFLAGS_NODIST="$counting" LDFLAGS_NODIST="$counting"
    PYTHONHOME=/nonexistent PYTHONPATH="$PREFIX/source/Lib:$CHECKOUT" PYTHONDONTWRITEBYTECODE=1 ./python -S "$CHECKOUT/devtools/static/training.py"
    find . -name '*.[oa]' -delete
    rm -f python _bootstrap_python Programs/_freeze_module
    # partial-training: what the training did not run is compiled as if there were no profile, and not
    # for size. Without it gcc puts the whole eval loop among the cold code.
    flags="-fprofile-use -fprofile-correction -fprofile-partial-training -Wno-missing-profile"
fi
make -j"$JOBS" python libpython3.13.a CFLAGS_NODIST="$flags"
if [ "$PGO" = 1 ]; then
    nm --print-size Python/ceval.o | awk '
        $4 == "_PyEval_EvalFrameDefault" { hot = $2 }
        $4 == "_PyEval_EvalFrameDefault.cold" { cold = $2 }
        END {
            if ((hot "") > (cold "")) exit 0
            print "the eval loop is compiled as cold code: " hot " bytes of it hot, " cold " cold (in hex)"
            exit 1
        }' >&2
fi

# What linking needs stays: the libraries, the headers and the Python modules.
find . -name '*.o' -delete
find . -name '*.gcda' -delete
rm -r ../debian ../source/Lib/test ../source/Lib/idlelib ../source/Doc
