/* rapid's main(): an interpreter that has every module inside its own file.
 *
 * It opens no file and reads no variable of the environment to start, and so works where there is
 * nothing: no /proc, no /tmp, no library, another Python's PYTHONHOME. Nothing here runs code from
 * outside: there is no search path, no site module, no option of the interpreter's own.
 */
#include <Python.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Written by freeze.py. */
extern const struct _frozen frozen_modules[];

/* The module _prctl: what ctypes, which needs a dynamic loader, does for rapid elsewhere. */

static PyObject *call_prctl(PyObject *module, PyObject *args)
{
    int option;
    unsigned long value;
    (void)module;
    if (!PyArg_ParseTuple(args, "ik", &option, &value))
        return NULL;
    if (prctl(option, value, 0UL, 0UL, 0UL) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef prctl_functions[] = {
    {"prctl", call_prctl, METH_VARARGS, "prctl(option, value): see prctl(2); raises OSError."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef prctl_module = {
    PyModuleDef_HEAD_INIT, "_prctl", "Options of this process.", 0, prctl_functions,
    NULL, NULL, NULL, NULL,
};

static PyObject *init_prctl(void)
{
    return PyModuleDef_Init(&prctl_module);
}

/* Return the path of this very file: by /proc, or where there is none the path that execve was
 * given, which needs no search in PATH. */
static const char *own_path(void)
{
    static char path[2 * PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (length > 0) {
        path[length] = '\0';
        if (access(path, F_OK) == 0) /* not replaced or deleted since */
            return path;
    }
    const char *given = (const char *)getauxval(AT_EXECFN);
    path[0] = '\0';
    if (given[0] != '/' && getcwd(path, PATH_MAX) != NULL)
        strcat(path, "/");
    strncat(path, given, PATH_MAX - 1);
    return path;
}

static void check(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

static void set(PyConfig *config, wchar_t **field, const char *value)
{
    check(PyConfig_SetBytesString(config, field, value));
}

static void start_interpreter(int argc, char **argv)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1; /* whatever the locale says: an image may have none */
    before.allocator = PYMEM_ALLOCATOR_MIMALLOC; /* musl's own would map memory 1,100 times */
    check(Py_PreInitialize(&before));

    PyImport_FrozenModules = frozen_modules;
    if (PyImport_AppendInittab("_prctl", init_prctl) < 0)
        Py_FatalError("no memory");

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config); /* no variables, no user's folder, no sys.argv[0] path */
    config.site_import = 0;
    config.write_bytecode = 0;
    config.parse_argv = 0;               /* the words are rapid's */
    config.install_signal_handlers = 1;  /* as python has it: SIGPIPE is an error, not an end */
    config.pathconfig_warnings = 0;
    config.module_search_paths_set = 1;  /* and none is set: sys.path is empty */

    const char *path = own_path();
    set(&config, &config.program_name, path);
    set(&config, &config.executable, path);
    set(&config, &config.base_executable, path);
    /* Where these are not set, the interpreter looks for them on the disk. */
    set(&config, &config.home, "/nonexistent");
    set(&config, &config.prefix, "/nonexistent");
    set(&config, &config.base_prefix, "/nonexistent");
    set(&config, &config.exec_prefix, "/nonexistent");
    set(&config, &config.base_exec_prefix, "/nonexistent");
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);

    PySys_SetObject("frozen", Py_True); /* the mark that other freezers set as well */
}

/* Return the code that rapid has asked to end with; print whatever else has ended it. */
static int exit_code(void)
{
    if (!PyErr_ExceptionMatches(PyExc_SystemExit)) {
        PyErr_Print();
        return 1;
    }
    PyObject *code = PyObject_GetAttrString(PyErr_GetRaisedException(), "code");
    return (int)PyLong_AsLong(code);
}

static void flush(const char *name)
{
    PyObject *stream = PySys_GetObject(name);
    if (stream != NULL && stream != Py_None && PyObject_CallMethod(stream, "flush", NULL) == NULL)
        PyErr_Clear(); /* nobody reads it any more */
}

int main(int argc, char **argv)
{
    start_interpreter(argc, argv);
    PyGC_Disable(); /* importing leaves no garbage; Daemon.run() switches it on */
    int code = 0;
    if (PyImport_ImportFrozenModule("__main__") <= 0) /* rapid/__main__.py */
        code = exit_code();
    flush("stdout");
    flush("stderr");
    /* Not by Py_Finalize: it frees what daemon threads still use, and mimalloc unmaps that. A thread
     * that has only just been started would crash the process in its last millisecond. */
    _exit(code);
}
