#!/bin/sh
# The executable: the program $MAIN and all that it imports, frozen, with the interpreter round it.
set -eu

source=$PYTHON/source
build=$PYTHON/build
PYTHONHOME=/nonexistent PYTHONPATH="$source/Lib:$CHECKOUT" PYTHONDONTWRITEBYTECODE=1 "$build/python" -S -X frozen_modules=off \
    "$HERE/freeze.py" "$WORK" "$MAIN" "$CHECKOUT" "$SOURCES/python" "$source/Lib"

for unit in "$HERE/main.c" "$WORK/frozen.c"; do
    x-musl-gcc -O2 -Wall -Wextra -fno-pie -I"$source/Include" -I"$build" -c "$unit" -o "$WORK/$(basename "$unit" .c).o"
done

# CPython's Makefile knows what its modules need; their paths are from its folder.
cd "$build"
words=$(make --silent --no-print-directory --file=- words <<'END'
include Makefile
words:
	@echo $(PY_CORE_LDFLAGS) libpython3.13.a $(LIBS) $(MODLIBS) $(SYSLIBS)
END
)
# shellcheck disable=SC2086  # a list of words
x-musl-gcc -o "$WORK/program" "$WORK/main.o" "$WORK/frozen.o" $words
strip "$WORK/program"
