/* The express lane: from a client to a server. See `_lane.c`. */

#ifndef HYPERDRIVE_LANE_ASK_H
#define HYPERDRIVE_LANE_ASK_H

#include "_lane_hit.h"
#include "_lane_pass.h"

/* --- from the client to a server ------------------------------------------------------------------------------------------ */

/* The Bind at the head of *data* with the shared statement's name in the place of the client's. */
static PyObject *renamed(const Asked *asked, PyObject *name, PyObject *data)
{
    const char *bytes = PyBytes_AS_STRING(data);
    Py_ssize_t rest = PyBytes_GET_SIZE(data) - asked->text_end, size = PyBytes_GET_SIZE(name);
    PyObject *result = PyBytes_FromStringAndSize(NULL, 6 + size + rest);
    if (result == NULL)
        return NULL;
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(result);
    Py_ssize_t length = asked->head_end - 1 + size - (asked->text_end - 6);
    to[0] = 'B';
    to[1] = (unsigned char)(length >> 24);
    to[2] = (unsigned char)(length >> 16);
    to[3] = (unsigned char)(length >> 8);
    to[4] = (unsigned char)length;
    to[5] = 0;
    memcpy(to + 6, PyBytes_AS_STRING(name), (size_t)size);
    memcpy(to + 6 + size, bytes + asked->text_end, (size_t)rest);
    return result;
}

/* ClientSession.compose_whole and ServerSession.put, for a server and a client that nothing else is going on with. */
static int compose(PyObject *session, PyObject *state, const Asked *asked, PyObject *data, PyObject *verdict)
{
    PyObject *first = Py_None;
    if (asked->kind == int_bind) {
        PyObject *shared = GET(asked->named, named_statement);
        PyObject *moved = PyObject_CallMethodOneArg(GET(state, state_statements), str_move_to_end, shared);
        if (moved == NULL)
            return -1;
        Py_DECREF(moved);
        PyObject *entries = PyLong_FromSsize_t(PyTuple_GET_SIZE(GET(asked->whole, whole_steps)));
        if (entries == NULL)
            return -1;
        put(session, session_again_entries, entries);
        SET(session, session__again, data);
        first = GET(asked->named, named_bind);
    } else if (asked->kind == int_parse) {
        SET(session, session_unnamed, data);
        SET(session, session_unnamed_verdict, verdict);
        SET(state, state_unnamed, data);
    } else {
        SET(session, session_unnamed, Py_None);
        SET(state, state_unnamed, Py_None);
    }
    SET(state, state__first, first);
    return close_portal(session) < 0 || push(GET(state, state_queue), asked->whole) < 0 ? -1 : 0;
}

/* 1: it has been asked or answered. 0: not mine, and nothing has happened. -1: a fault, with its exception. */
static int ask(PyObject *client, PyObject *data)
{
    PyObject *session = GET(client, client_session);
    if (!IS(session, session) || PyList_GET_SIZE(GET(session, session_ops)) != 0 ||
        !IS_FLAG(session, session__awkward, Py_False) || PyBytes_GET_SIZE(GET(session, session__buffer)) != 0 ||
        !IS_FLAG(session, session_held, Py_None) || !IS_FLAG(session, session_live, Py_None) ||
        !IS_FLAG(session, session_whole, Py_None) || !IS_FLAG(session, session_terminated, Py_False) ||
        !IS_FLAG(client, client_server, Py_None) || !IS_FLAG(client, client_waiting, Py_False))
        return 0;
    Asked asked;
    int found = recognise(&asked, session, data);
    if (found <= 0)
        return found;
    PyObject *journal = GET(session, session_journal), *reader = GET(client, client_reader);
    if (!IS(journal, journal))
        return 0;
    PyObject *wanted = GET(journal, journal_wanted), *told = GET(session, session_told);
    int has_to_pass = 0;
    if (reader != Py_None) {
        if (!IS(reader, reader) || !IS(GET(reader, reader__pool), pool_cache))
            return 0;
        int is_settled = GET(reader, reader__wanted) == wanted && GET(reader, reader__told) == told;
        if (is_settled) {
            if (asked.is_limited)
                return 0;
            found = glance(client, session, reader, &asked, data);
            if (found != 0 || PyErr_Occurred())
                return found;
        }
        has_to_pass = !IS_FLAG(GET(reader, reader__pool), pool_cache_caches_reads, Py_False);
        if (has_to_pass && !may_pass(reader, &asked, is_settled))
            return 0; /* a miss: much has to be decided */
    }
    PyObject *verdict = verdict_of(session, &asked, data);
    if (!IS(verdict, verdict) || !IS_FLAG(verdict, verdict_is_plain, Py_True))
        return 0;
    int is_read = IS_FLAG(verdict, verdict_is_read, Py_True);
    if (reader != Py_None && is_read) {
        const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(data);
        if (asked.named != NULL ? !IS_FLAG(GET(asked.named, named_statement), shared_worth_a_look, Py_False)
                                : may_be_introspection(bytes, bytes + PyBytes_GET_SIZE(data)))
            return 0;
    }

    PyObject *context = GET(client, client_context);
    if (!IS(context, context) || !IS(GET(context, context_pool), pool) || !IS(GET(context, context_stats), stats) ||
        !IS_FLAG(client, client_lead, Py_None) || !IS_FLAG(client, client__paused, Py_False))
        return 0;
    PyObject *idle = GET(GET(context, context_pool), pool__idle);
    Py_ssize_t last = PyList_GET_SIZE(idle) - 1;
    if (last < 0)
        return 0;
    PyObject *server = PyList_GET_ITEM(idle, last);
    if (!IS(server, server))
        return 0;
    PyObject *state = GET(server, server_session);
    if (!IS(state, state) || GET(state, state_label) != wanted || GET(state, state_view) != told ||
        !(has_to_pass || IS_FLAG(state, state_noted, Py_None)) || !IS_FLAG(state, state_usual, Py_True) ||
        Py_TYPE(GET(state, state_queue)) != deque_type || PyObject_Size(GET(state, state_queue)) != 0)
        return 0;
    if (asked.named != NULL) {
        PyObject *statements = GET(state, state_statements), *shared = GET(asked.named, named_statement);
        if (Py_TYPE(statements) != ordered_type || PyDict_GetItemWithError(statements, shared) != Py_True)
            return 0;
    }
    PyObject *out = asked.named == NULL ? Py_NewRef(data)
                                        : renamed(&asked, GET(GET(asked.named, named_statement), shared_name), data);
    PyObject *op = is_read ? PyTuple_Pack(3, asked.kind, data, verdict) : Py_NewRef(Py_None);
    Py_INCREF(server);
    found = out == NULL || op == NULL ? -1 : has_to_pass ? passes(reader, data, verdict) : 1;
    if (found > 0 && PyList_SetSlice(idle, last, last + 1, NULL) < 0)
        found = -1;
    if (found <= 0) {
        Py_DECREF(server);
        Py_XDECREF(out);
        Py_XDECREF(op);
        return found;
    }
    /* From here on the server is the client's. */
    SET(server, server_pool_state, state_active);
    SET(client, client_server, server);
    SET(server, server_client, client);
    SET(state, state_client, session);
    SET(client, client_idle_sweeps, int_zero);
    SET(client, client_reading, is_read ? Py_True : Py_False);
    if (has_to_pass)
        SET(session, session_proven, op); /* it is not noted: it has been judged */
    put(client, client_resend, op);
    int failed = compose(session, state, &asked, data, verdict) < 0 ||
                 count(GET(context, context_stats), stats_origin_round_trips) < 0 ||
                 write_to(GET(server, server_write), out) < 0;
    Py_DECREF(out);
    Py_DECREF(server);
    return failed ? -1 : 1;
}

#endif
