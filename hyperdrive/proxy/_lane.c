/* The express lane: the usual case of the query path in C. `lane.py` says what it is for and installs it.
 *
 * Four things are done here, each a translation of the Python that stands beside it, for the case that Python calls usual:
 *
 *   ask     (_lane_ask.h) ClientConnection.data_received: one whole scope of a plain statement, for a client without a server, goes to an idle
 *           server that has the client's settings  (Batch.receive, _express, ClientSession.compose_whole, ServerSession.put)
 *   glance  (_lane_hit.h) Reader.glance: the same bytes have been answered before, and the answer still holds
 *   pass    (_lane_pass.h) Reader.answer: the cache has nothing for a read and wants nothing of it, so it is asked like any other
 *   answer  (_lane_answer.h) ServerConnection.data_received: one whole reply, in the usual order and to its end, goes to the client, and the server
 *           back to its pool  (ServerSession.receive, _pass_on, ClientConnection.served, Pool.release)
 *
 * The rule that keeps this right: *first look, then act*. While it looks nothing is changed, and whatever is not exactly as expected
 * (a type, a flag, a byte) makes it say "not mine": then the Python method runs, as if this did not exist. So nothing is decided here
 * that Python does not decide, and there is no case that only this knows. Objects are read through their slots, whose offsets are
 * looked up by name when it is installed (_lane_objects.h); a name that has gone refuses the installation.
 *
 * The parts are headers of one translation unit: all is static, and the compiler sees all of it.
 */

#include "_lane_answer.h"
#include "_lane_ask.h"

#ifndef HYPERDRIVE_SOURCES
#define HYPERDRIVE_SOURCES ""
#endif

/* --- as methods ----------------------------------------------------------------------------------------------------------- */

/* Python's `except Exception as exc: self.failed(exc)`. */
static PyObject *tell_fault(PyObject *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    PyObject *result = PyObject_CallMethodOneArg(self, str_failed, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result;
}

static PyObject *run(int (*mine)(PyObject *, PyObject *), PyTypeObject *type, PyObject *python, PyObject *const *args,
                     Py_ssize_t count_)
{
    if (count_ == 2 && Py_TYPE(args[0]) == type && PyBytes_CheckExact(args[1])) {
        int done = mine(args[0], args[1]);
        if (done > 0)
            Py_RETURN_NONE;
        if (done < 0)
            return tell_fault(args[0]);
        PyErr_Clear(); /* of a look that could not be finished */
    }
    return PyObject_Vectorcall(python, args, (size_t)count_, NULL);
}

static PyObject *client_received(PyObject *python, PyObject *const *args, Py_ssize_t count_)
{
    return run(ask, client_type, python, args, count_);
}

static PyObject *server_received(PyObject *python, PyObject *const *args, Py_ssize_t count_)
{
    return run(answer, server_type, python, args, count_);
}

static PyMethodDef client_method = {"data_received", (PyCFunction)(void (*)(void))client_received, METH_FASTCALL, NULL};
static PyMethodDef server_method = {"data_received", (PyCFunction)(void (*)(void))server_received, METH_FASTCALL, NULL};

/* A method that is C where that is enough, and *python* otherwise. */
static PyObject *method(PyMethodDef *definition, PyObject *python)
{
    PyObject *function = PyCFunction_New(definition, python);
    PyObject *result = function == NULL ? NULL : PyInstanceMethod_New(function);
    Py_XDECREF(function);
    return result;
}

/* --- installation ------------------------------------------------------------------------------------------------------- */

static int find_slot(PyTypeObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *found = PyObject_GetAttrString((PyObject *)type, name);
    if (found == NULL)
        return -1;
    if (!Py_IS_TYPE(found, &PyMemberDescr_Type) || ((PyMemberDescrObject *)found)->d_member->type != T_OBJECT_EX) {
        PyErr_Format(PyExc_TypeError, "%s.%s is no slot", type->tp_name, name);
        Py_DECREF(found);
        return -1;
    }
    *offset = ((PyMemberDescrObject *)found)->d_member->offset;
    Py_DECREF(found);
    return 0;
}

static int read_tails(PyObject *shapes, PyObject *letters, Tail *tails, int *count_)
{
    PyObject *bytes, *whole;
    Py_ssize_t position = 0;
    *count_ = 0;
    while (PyDict_Next(shapes, &position, &bytes, &whole)) {
        PyObject *letter = PyDict_GetItemWithError(letters, bytes);
        if (*count_ == MAX_TAILS || !PyBytes_CheckExact(bytes) || !IS(whole, whole) || letter == NULL ||
            !PyBytes_CheckExact(letter) || PyBytes_GET_SIZE(letter) != 1) {
            PyErr_SetString(PyExc_TypeError, "the shapes of scopes are not what they were");
            return -1;
        }
        tails[(*count_)++] = (Tail){(const unsigned char *)PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), whole,
                                    (unsigned char)PyBytes_AS_STRING(letter)[0]};
        Py_INCREF(bytes); /* for good, like everything that is kept here */
        Py_INCREF(whole);
    }
    return 0;
}

/* install(classes, constants): classes by the names above, and what `lane.py` hands over; returns the two methods. */
static PyObject *install(PyObject *module, PyObject *args)
{
    PyObject *classes, *behind_parse_, *behind_bind_, *letters, *client_python, *server_python, *ordered, *deque;
    if (!PyArg_ParseTuple(args, "O!OSOO!O!O!SOOOOOO", &PyDict_Type, &classes, &classify, &fold, &query_whole, &PyDict_Type,
                          &behind_parse_, &PyDict_Type, &behind_bind_, &PyDict_Type, &letters, &parse_complete,
                          &state_active, &state_idle, &deque, &ordered, &client_python, &server_python))
        return NULL;
#define FIND_CLASS(class)                                                                        \
    class##_type = (PyTypeObject *)PyDict_GetItemString(classes, #class);                        \
    if (class##_type == NULL || !PyType_Check(class##_type)) {                                   \
        PyErr_SetString(PyExc_TypeError, "no class " #class);                                    \
        return NULL;                                                                             \
    }                                                                                            \
    Py_INCREF(class##_type);
    CLASSES(FIND_CLASS)
#define FIND_SLOT(class, name)                                          \
    if (find_slot(class##_type, #name, &class##_##name) < 0)            \
        return NULL;
    SLOTS(FIND_SLOT)
    if (!IS(query_whole, whole) || PyBytes_GET_SIZE(fold) != 256 || !PyType_Check(deque) || !PyType_Check(ordered)) {
        PyErr_SetString(PyExc_TypeError, "a constant is not what it was");
        return NULL;
    }
    deque_type = (PyTypeObject *)deque;
    ordered_type = (PyTypeObject *)ordered;
    if (read_tails(behind_parse_, letters, behind_parse, &tails_of_parse) < 0 ||
        read_tails(behind_bind_, letters, behind_bind, &tails_of_bind) < 0)
        return NULL;
    PyObject *kept[] = {classify, fold, query_whole, parse_complete, state_active, state_idle, deque, ordered};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        Py_INCREF(kept[i]);
    PyObject *ours = method(&client_method, client_python), *theirs = method(&server_method, server_python);
    if (ours == NULL || theirs == NULL)
        return NULL;
    return Py_BuildValue("NN", ours, theirs);
}

static PyMethodDef functions[] = {
    {"install", install, METH_VARARGS, "install(classes, constants...): the methods in C, which call the given ones."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_lane", "The express lane; see lane.py.", -1, functions};

PyMODINIT_FUNC PyInit__lane(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    str_append = PyUnicode_InternFromString("append");
    str_popleft = PyUnicode_InternFromString("popleft");
    str_move_to_end = PyUnicode_InternFromString("move_to_end");
    str_hit = PyUnicode_InternFromString("hit");
    str_failed = PyUnicode_InternFromString("failed");
    str_served = PyUnicode_InternFromString("served");
    str_release = PyUnicode_InternFromString("release");
    str_vouched_until = PyUnicode_InternFromString("vouched_until");
    str_passes = PyUnicode_InternFromString("passes");
    no_bytes = PyBytes_FromStringAndSize("", 0);
    int_idle = PyLong_FromLong('I');
    int_zero = PyLong_FromLong(0);
    int_one = PyLong_FromLong(1);
    int_query = PyLong_FromLong('Q');
    int_parse = PyLong_FromLong('P');
    int_bind = PyLong_FromLong('B');
    if (PyErr_Occurred() || PyModule_AddStringConstant(module, "sources", HYPERDRIVE_SOURCES) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
