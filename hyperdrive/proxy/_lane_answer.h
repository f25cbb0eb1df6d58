/* The express lane: from a server back to its client. See `_lane.c`. */

#ifndef HYPERDRIVE_LANE_ANSWER_H
#define HYPERDRIVE_LANE_ANSWER_H

#include "_lane_objects.h"

/* --- and back ------------------------------------------------------------------------------------------------------------- */

/* ServerSession.receive: *data* is the whole reply that *step* begins, to its end, and the session is idle behind it. */
static int is_whole_reply(PyObject *step, PyObject *data)
{
    const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(data);
    Py_ssize_t size = PyBytes_GET_SIZE(data), i = 0;
    while (i + 5 <= size) {
        PyObject *kind = PyLong_FromLong(bytes[i]); /* one of the small ones that are always there */
        PyObject *following = kind == NULL ? NULL : PyDict_GetItemWithError(step, kind);
        Py_XDECREF(kind);
        Py_ssize_t end = i + 1 + be32(bytes + i + 1);
        if (!IS(following, step) || end <= i || end > size)
            return 0;
        if (PyDict_GET_SIZE(following) == 0)
            return end == size && end - i == 6 && bytes[i + 5] == 'I';
        step = following;
        i = end;
    }
    return 0;
}

static int call_with(PyObject *object, PyObject *method, PyObject *argument)
{
    PyObject *result = PyObject_CallMethodOneArg(object, method, argument);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Pool.release */
static int release(PyObject *pool, PyObject *server)
{
    if (!IS_FLAG(pool, pool__special, Py_False) || !IS_FLAG(server, server_pool_state, state_active))
        return call_with(pool, str_release, server);
    PyObject *now = PyObject_CallNoArgs(GET(pool, pool__now));
    if (now == NULL)
        return -1;
    put(server, server_used_at, now);
    SET(server, server_pool_state, state_idle);
    return PyList_Append(GET(pool, pool__idle), server);
}

/* ClientConnection.served */
static int served(PyObject *client, PyObject *server, PyObject *state)
{
    PyObject *session = GET(client, client_session), *context = GET(client, client_context);
    if (PyList_GET_SIZE(GET(session, session_ops)) != 0 || !IS_FLAG(session, session_terminated, Py_False) ||
        !IS_FLAG(client, client__paused, Py_False) || !IS_FLAG(client, client__source_paused, Py_False) ||
        GET(server, server_cancels) != int_zero || !IS_FLAG(session, session_keeps_server, Py_False))
        return call_with(client, str_served, server);
    SET(client, client_server, Py_None);
    SET(server, server_client, Py_None);
    SET(state, state_client, Py_None);
    SET(client, client__retried, Py_False);
    return count(GET(context, context_stats), stats_released) < 0 || release(GET(context, context_pool), server) < 0 ? -1 : 0;
}

/* Nothing was asked of the server that may have changed rows; None is that nobody wants to know. */
static int is_nothing_noted(PyObject *state)
{
    PyObject *noted = GET(state, state_noted);
    return noted == Py_None || (noted != NULL && PyDict_CheckExact(noted) && PyDict_GET_SIZE(noted) == 0);
}

/* As `ask`, for what a server says. */
static int answer(PyObject *server, PyObject *data)
{
    PyObject *state = GET(server, server_session), *client = GET(server, server_client);
    if (!IS(state, state) || !IS(client, client) || GET(client, client_server) != server ||
        !IS_FLAG(server, server__held, Py_None) || !IS_FLAG(server, server_filling, Py_None) ||
        !is_nothing_noted(state) || !IS_FLAG(state, state_usual, Py_True) || !IS_FLAG(state, state_attention, Py_False) ||
        PyBytes_GET_SIZE(GET(state, state__tail)) != 0)
        return 0;
    PyObject *queue = GET(state, state_queue), *session = GET(client, client_session), *context = GET(client, client_context);
    if (Py_TYPE(queue) != deque_type || PyObject_Size(queue) != 1 || !IS(session, session) || !IS(context, context) ||
        !IS(GET(context, context_pool), pool) || !IS(GET(context, context_stats), stats))
        return 0;
    PyObject *whole = PySequence_GetItem(queue, 0);
    int mine = IS(whole, whole) && IS(GET(whole, whole_start), step) && is_whole_reply(GET(whole, whole_start), data);
    Py_XDECREF(whole);
    if (!mine)
        return 0;
    /* From here on the reply is the client's. */
    PyObject *gone = PyObject_CallMethodNoArgs(queue, str_popleft);
    if (gone == NULL)
        return -1;
    Py_DECREF(gone);
    Py_INCREF(client);
    Py_INCREF(state);
    SET(state, state_status, int_idle);
    int failed = write_to(GET(client, client_write), data) < 0;
    if (!failed) {
        SET(client, client_resend, Py_None);
        failed = served(client, server, state) < 0;
    }
    Py_DECREF(state);
    Py_DECREF(client);
    return failed ? -1 : 1;
}

#endif
