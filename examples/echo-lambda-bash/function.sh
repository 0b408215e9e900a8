# shellcheck shell=bash
# The function: it answers with the event that it was given.
#
# A handler reads the event from standard input and writes its answer to standard output; what it
# writes to standard error is its log.

handler() {
    cat
}
