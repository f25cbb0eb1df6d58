/* The express lane's view of Python's objects: their slots, what Python hands over, and small steps. See `_lane.c`. */

#ifndef HYPERDRIVE_LANE_OBJECTS_H
#define HYPERDRIVE_LANE_OBJECTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <string.h>

/* --- what is known of Python's objects --------------------------------------------------------------------------------- */

/* The classes, in the order in which `install` is given them. */
#define CLASSES(X) \
    X(client) X(session) X(journal) X(reader) X(pool_cache) X(store) X(space) X(domain) X(entry) X(context) X(stats) X(pool) \
    X(server) X(state) X(whole) X(step) X(named) X(shared) X(verdict) X(verdicts) X(memory) X(pipe)

#define SLOTS(X) \
    X(client, session) X(client, reader) X(client, server) X(client, waiting) X(client, _paused) X(client, _source_paused) \
    X(client, _retried) X(client, lead) X(client, reading) X(client, resend) X(client, context) X(client, write) \
    X(client, idle_sweeps) \
    X(session, ops) X(session, _awkward) X(session, _buffer) X(session, journal) X(session, told) X(session, held) \
    X(session, live) X(session, whole) X(session, _shared) X(session, _classify) X(session, unnamed) \
    X(session, unnamed_verdict) X(session, _portals) X(session, _again) X(session, again_entries) X(session, terminated) \
    X(session, keeps_server) X(session, pipe) X(session, proven) \
    X(journal, wanted) X(pipe, epoch) \
    X(reader, _cache) X(reader, _wanted) X(reader, _told) X(reader, _space) X(reader, _pool) X(reader, _store) X(reader, _now) \
    X(reader, last_write_no) X(reader, last_kind) X(reader, last_entry) X(reader, last_at) \
    X(pool_cache, caches_reads) X(store, hits) X(space, entries) X(space, domain) X(domain, seq) \
    X(entry, seen) X(entry, fill_no) X(entry, early_from) X(entry, hits) X(entry, body) X(entry, info) \
    X(context, pool) X(context, stats) X(stats, origin_round_trips) X(stats, released) \
    X(pool, _idle) X(pool, _special) X(pool, _now) \
    X(server, session) X(server, client) X(server, pool_state) X(server, used_at) X(server, write) X(server, _held) \
    X(server, filling) X(server, cancels) \
    X(state, label) X(state, view) X(state, client) X(state, noted) X(state, statements) X(state, unnamed) X(state, usual) X(state, attention) \
    X(state, queue) X(state, _first) X(state, _tail) X(state, status) \
    X(whole, steps) X(whole, start) X(named, statement) X(named, bind) X(named, is_pending) X(named, wanted) X(named, epoch) \
    X(shared, verdict) X(shared, name) X(shared, body) X(shared, worth_a_look) X(verdict, is_plain) X(verdict, is_read) \
    X(verdicts, _texts) X(verdicts, _folds) X(memory, young)

#define DECLARE_CLASS(class) static PyTypeObject *class##_type;
CLASSES(DECLARE_CLASS)
#define DECLARE_SLOT(class, name) static Py_ssize_t class##_##name;
SLOTS(DECLARE_SLOT)

#define GET(object, slot) (*(PyObject **)((char *)(object) + (slot)))
#define IS(object, class) ((object) != NULL && Py_TYPE(object) == class##_type)
#define IS_FLAG(object, slot, flag) (GET(object, slot) == (flag))

/* Take the reference *value*. */
static inline void put(PyObject *object, Py_ssize_t slot, PyObject *value)
{
    PyObject *before = GET(object, slot);
    GET(object, slot) = value;
    Py_XDECREF(before);
}

#define SET(object, slot, value) put((object), (slot), Py_NewRef(value))

/* --- what Python gives at installation --------------------------------------------------------------------------------- */

static PyObject *classify;                      /* VerdictCache.classify, the function */
static PyObject *fold;                          /* 256 bytes: digits to zero */
static PyObject *query_whole;                   /* the Whole of one Query */
static PyObject *parse_complete;                /* that message */
static PyObject *state_active, *state_idle;     /* of a server in its pool */
static PyTypeObject *deque_type, *ordered_type; /* collections.deque, collections.OrderedDict */
static PyObject *str_append, *str_popleft, *str_move_to_end, *str_hit, *str_failed, *str_served, *str_release, *str_vouched_until;
static PyObject *str_passes;
static PyObject *no_bytes, *int_idle, *int_zero, *int_one, *int_query, *int_parse, *int_bind;

/* --- small steps -------------------------------------------------------------------------------------------------------- */

/* An Int32 of the protocol. */
static inline Py_ssize_t be32(const unsigned char *at)
{
    return ((Py_ssize_t)at[0] << 24) | ((Py_ssize_t)at[1] << 16) | ((Py_ssize_t)at[2] << 8) | (Py_ssize_t)at[3];
}

/* Add one to a counter, which is a Python int. */
static int count(PyObject *object, Py_ssize_t slot)
{
    PyObject *sum = PyNumber_Add(GET(object, slot), int_one);
    if (sum == NULL)
        return -1;
    put(object, slot, sum);
    return 0;
}

static int write_to(PyObject *write, PyObject *data)
{
    PyObject *result = PyObject_CallOneArg(write, data);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

/* `append` to a deque, `popleft` from it: by name, as its layout is nobody's business. */
static int push(PyObject *queue, PyObject *entry)
{
    PyObject *result = PyObject_CallMethodOneArg(queue, str_append, entry);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* ClientSession.close_portal */
static int close_portal(PyObject *session)
{
    PyObject *portals = GET(session, session__portals);
    if (portals != Py_None && PyDict_GET_SIZE(portals) > 0 && PyDict_Contains(portals, no_bytes) == 1)
        return PyDict_DelItem(portals, no_bytes);
    return 0;
}

#endif
