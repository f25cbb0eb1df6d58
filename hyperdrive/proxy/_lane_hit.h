/* The express lane: a request that has been answered before. See `_lane.c`. */

#ifndef HYPERDRIVE_LANE_HIT_H
#define HYPERDRIVE_LANE_HIT_H

#include "_lane_asked.h"

/* --- a hit --------------------------------------------------------------------------------------------------------------- */

/* glanced_key; a new reference, NULL without an error: there is none. */
static PyObject *key_of(PyObject *session, PyObject *wanted, const Asked *asked, PyObject *data)
{
    if (asked->kind == int_query)
        return Py_NewRef(data);
    const char *bytes = PyBytes_AS_STRING(data);
    const char *head = bytes + 6;
    Py_ssize_t head_size = asked->head_end - 6, rest_at = asked->head_end + 7;
    if (asked->kind == int_bind) {
        PyObject *pipe = GET(session, session_pipe), *body = GET(GET(asked->named, named_statement), shared_body);
        if (!IS(pipe, pipe) || GET(asked->named, named_wanted) != wanted || !PyBytes_CheckExact(body) ||
            PyObject_RichCompareBool(GET(asked->named, named_epoch), GET(pipe, pipe_epoch), Py_EQ) != 1)
            return NULL;
        head = PyBytes_AS_STRING(body);
        head_size = PyBytes_GET_SIZE(body);
        rest_at = asked->text_end + 1;
    }
    PyObject *key = PyBytes_FromStringAndSize(NULL, 1 + head_size + asked->end - rest_at);
    if (key != NULL) {
        char *to = PyBytes_AS_STRING(key);
        to[0] = (char)asked->letter;
        memcpy(to + 1, head, (size_t)head_size);
        memcpy(to + 1 + head_size, bytes + rest_at, (size_t)(asked->end - rest_at));
    }
    return key;
}

static int is_less(PyObject *a, PyObject *b)
{
    return PyObject_RichCompareBool(a, b, Py_LT);
}

/* Reader.glance for a reader whose session is what it was: 1 served, 0 not mine, -1 failed. */
static int glance(PyObject *client, PyObject *session, PyObject *reader, const Asked *asked, PyObject *data)
{
    PyObject *space = GET(reader, reader__space), *store = GET(reader, reader__store);
    if (!IS(space, space) || !IS(store, store) || !IS(GET(space, space_domain), domain))
        return 0;
    PyObject *key = key_of(session, GET(reader, reader__wanted), asked, data);
    if (key == NULL)
        return 0;
    PyObject *entry = PyDict_GetItemWithError(GET(space, space_entries), key);
    Py_DECREF(key);
    if (!IS(entry, entry) ||
        PyObject_RichCompareBool(GET(entry, entry_seen), GET(GET(space, space_domain), domain_seq), Py_EQ) != 1 ||
        is_less(GET(reader, reader_last_write_no), GET(entry, entry_fill_no)) != 1)
        return 0;
    PyObject *now = PyObject_CallNoArgs(GET(reader, reader__now));
    PyObject *vouched = now == NULL ? NULL : PyObject_GetAttr(GET(reader, reader__cache), str_vouched_until);
    int is_fresh = vouched != NULL && is_less(now, GET(entry, entry_early_from)) == 1 && is_less(now, vouched) == 1;
    Py_XDECREF(vouched);
    if (!is_fresh) {
        Py_XDECREF(now);
        return 0;
    }
    PyObject *body = Py_NewRef(GET(entry, entry_body));
    if (asked->kind == int_parse) {
        PyObject *rest = body;
        body = NULL;
        if (PyBytes_CheckExact(rest)) {
            body = Py_NewRef(parse_complete);
            PyBytes_Concat(&body, rest);
        }
        Py_DECREF(rest);
        if (body == NULL) {
            Py_DECREF(now);
            return 0;
        }
    }
    /* From here on it is served. */
    Py_INCREF(entry);
    put(reader, reader_last_at, now);
    SET(reader, reader_last_kind, str_hit);
    SET(reader, reader_last_entry, entry);
    SET(client, client_idle_sweeps, int_zero);
    if (asked->kind == int_query)
        SET(session, session_unnamed, Py_None);
    else if (asked->kind == int_parse) {
        SET(session, session_unnamed, data);
        SET(session, session_unnamed_verdict, GET(entry, entry_info));
    }
    int failed = count(entry, entry_hits) < 0 || count(store, store_hits) < 0 || close_portal(session) < 0 ||
                 write_to(GET(client, client_write), body) < 0;
    Py_DECREF(entry);
    Py_DECREF(body);
    return failed ? -1 : 1;
}

#endif
