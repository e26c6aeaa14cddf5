/* buckia.core._gear: gives _gear.c to Python, in the limited API (one binary for CPython 3.11 and all later ones). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_gear.c"

static PyObject *list_of(const size_t *ends, size_t count) {
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *end = PyLong_FromSize_t(ends[i]);
        if (end == NULL || PyList_SetItem(list, (Py_ssize_t)i, end) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *cuts(PyObject *module, PyObject *args) {
    Py_buffer data, table;
    PyObject *result = NULL;
    size_t *ends = NULL, count;
    uint64_t gear[256] = {0};
    int final;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*py*:cuts", &data, &final, &table)) return NULL;
    if (table.len != sizeof gear) {
        PyErr_SetString(PyExc_ValueError, "the table must have 2048 bytes");
        goto done;
    }
    for (size_t i = 0; i < sizeof gear; i++) gear[i / 8] = gear[i / 8] << 8 | ((const uint8_t *)table.buf)[i];
    ends = PyMem_Malloc(((size_t)data.len / GEAR_MIN + 1) * sizeof *ends);
    if (ends == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    count = gear_cuts(data.buf, (size_t)data.len, final, gear, ends);
    Py_END_ALLOW_THREADS
    result = list_of(ends, count);
done:
    PyMem_Free(ends);
    PyBuffer_Release(&table);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"cuts", cuts, METH_VARARGS, "cuts(data, final, table) -> list of the end offsets of all complete chunks"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_gear", "The content-defined chunker's kernel.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__gear(void) { return PyModuleDef_Init(&definition); }
