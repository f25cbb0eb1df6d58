/* The express lane: the usual case of the query path in C. `lane.py` says what it is for and installs it.
 *
 * Three things are done here, each a translation of the Python that stands beside it, for the case that Python calls usual:
 *
 *   ask     ClientConnection.data_received: one whole scope of a plain statement, for a client without a server, goes to an idle
 *           server that has the client's settings  (Batch.receive, _express, ClientSession.compose_whole, ServerSession.put)
 *   glance  Reader.glance: the same bytes have been answered before, and the answer still holds
 *   answer  ServerConnection.data_received: one whole reply, in the usual order and to its end, goes to the client, and the server
 *           back to its pool  (ServerSession.receive, _pass_on, ClientConnection.served, Pool.release)
 *
 * The rule that keeps this right: *first look, then act*. While it looks nothing is changed, and whatever is not exactly as expected
 * (a type, a flag, a byte) makes it say "not mine": then the Python method runs, as if this did not exist. So nothing is decided here
 * that Python does not decide, and there is no case that only this knows. Objects are read through their slots, whose offsets are
 * looked up by name when it is installed; a name that has gone refuses the installation.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <string.h>

#ifndef HYPERDRIVE_SOURCES
#define HYPERDRIVE_SOURCES ""
#endif

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
    X(session, keeps_server) X(session, pipe) \
    X(journal, wanted) X(pipe, epoch) \
    X(reader, _cache) X(reader, _wanted) X(reader, _told) X(reader, _space) X(reader, _pool) X(reader, _store) X(reader, _now) \
    X(reader, last_write_no) X(reader, last_kind) X(reader, last_entry) X(reader, last_at) \
    X(pool_cache, caches_reads) X(store, hits) X(space, entries) X(space, domain) X(domain, seq) \
    X(entry, seen) X(entry, fill_no) X(entry, early_from) X(entry, hits) X(entry, body) X(entry, info) \
    X(context, pool) X(context, stats) X(stats, origin_round_trips) X(stats, released) \
    X(pool, _idle) X(pool, _special) X(pool, _now) \
    X(server, session) X(server, client) X(server, pool_state) X(server, used_at) X(server, write) X(server, _held) \
    X(server, filling) X(server, cancels) \
    X(state, label) X(state, view) X(state, client) X(state, noted) X(state, statements) X(state, unnamed) X(state, usual) \
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
static PyObject *no_bytes, *int_idle, *int_zero, *int_one, *int_query, *int_parse, *int_bind;

#define MAX_TAILS 4
typedef struct {
    const unsigned char *bytes;
    Py_ssize_t size;
    PyObject *whole;
    unsigned char letter; /* of the cache's key: D with a Describe, E without */
} Tail;
static Tail behind_parse[MAX_TAILS], behind_bind[MAX_TAILS];
static int tails_of_parse, tails_of_bind;

#define MAX_FOLDED 2048 /* sql.cache._UNHURRIED_BYTES */

/* --- bytes -------------------------------------------------------------------------------------------------------------- */

static inline Py_ssize_t be32(const unsigned char *at)
{
    return ((Py_ssize_t)at[0] << 24) | ((Py_ssize_t)at[1] << 16) | ((Py_ssize_t)at[2] << 8) | (Py_ssize_t)at[3];
}

#define SYNC_SIZE 5
#define LIMIT_SIZE 4 /* the row limit of Execute, which stands before Sync */

/* scopes.BEHIND_PARSE and BEHIND_BIND, and with *is_limited* scopes.limited. */
static const Tail *tail_of(const Tail *tails, int count, const unsigned char *at, Py_ssize_t size, int *is_limited)
{
    Py_ssize_t head = size - SYNC_SIZE - LIMIT_SIZE;
    for (int i = 0; i < count; i++)
        if (tails[i].size == size && head > 0 && memcmp(tails[i].bytes, at, (size_t)head) == 0 &&
            memcmp(tails[i].bytes + size - SYNC_SIZE, at + size - SYNC_SIZE, SYNC_SIZE) == 0) {
            *is_limited = memcmp(tails[i].bytes + head, at + head, LIMIT_SIZE) != 0;
            return &tails[i];
        }
    return NULL;
}

static inline int is_word(const unsigned char *at, const unsigned char *end, const char *word, Py_ssize_t size)
{
    if (end - at < size)
        return 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned char c = at[i];
        if (c >= 'A' && c <= 'Z')
            c |= 0x20;
        if (c != (unsigned char)word[i])
            return 0;
    }
    return 1;
}

/* sql.introspection.may_be_introspection */
static int may_be_introspection(const unsigned char *at, const unsigned char *end)
{
    int has_from = 0;
    for (; at < end; at++) {
        switch (*at | 0x20) {
        case 'p':
            if (is_word(at, end, "pg_", 3))
                return 1;
            break;
        case 'f':
            has_from |= is_word(at, end, "from", 4);
            break;
        case 'i':
            if (is_word(at, end, "information_schema", 18))
                return 1;
            break;
        }
    }
    return !has_from;
}

/* --- small steps -------------------------------------------------------------------------------------------------------- */

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

/* --- what has been asked ------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject *kind;   /* QUERY, PARSE or BIND */
    PyObject *whole;  /* what its reply has to be */
    PyObject *named;  /* of BIND: the client's prepared statement */
    unsigned char letter;
    int is_limited;               /* Execute has a row limit, which is part of the cache's key: Python's to look for */
    Py_ssize_t text_at, text_end; /* of QUERY and PARSE: the statement; of BIND: its name */
    Py_ssize_t head_end;          /* behind the first message */
    Py_ssize_t end;               /* behind Bind, where Describe or Execute begins */
} Asked;

/* Batch.receive, _is_usual and _is_usual_parse as far as bytes go, and glanced_key's look at them. 0: not mine. */
static int recognise(Asked *asked, PyObject *session, PyObject *data)
{
    const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(data);
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    if (size <= 7)
        return 0;
    Py_ssize_t end = 1 + be32(bytes + 1);
    asked->named = NULL;
    asked->head_end = asked->end = end;
    asked->letter = 0;
    asked->is_limited = 0;
    if (bytes[0] == 'Q') {
        if (end != size || bytes[size - 1] != 0)
            return 0;
        asked->kind = int_query;
        asked->whole = query_whole;
        asked->text_at = 5;
        asked->text_end = size - 1;
        return 1;
    }
    if (end <= 7 || end + 7 > size || bytes[5] != 0)
        return 0; /* the rest is for the unnamed statement, or the unnamed portal */
    const unsigned char *zero = memchr(bytes + 6, 0, (size_t)(end - 6));
    if (zero == NULL)
        return 0;
    asked->text_at = 6;
    asked->text_end = zero - bytes;
    const Tail *tail;
    if (bytes[0] == 'P') {
        if (bytes[end] != 'B' || bytes[end + 5] != 0 || bytes[end + 6] != 0)
            return 0;
        asked->end = end + 1 + be32(bytes + end + 1);
        if (asked->end < end + 7 || asked->end >= size)
            return 0;
        tail = tail_of(behind_parse, tails_of_parse, bytes + asked->end, size - asked->end, &asked->is_limited);
        asked->kind = int_parse;
    } else if (bytes[0] == 'B') {
        asked->end = end;
        tail = tail_of(behind_bind, tails_of_bind, bytes + end, size - end, &asked->is_limited);
        asked->kind = int_bind;
    } else
        return 0;
    if (tail == NULL)
        return 0;
    asked->whole = tail->whole;
    asked->letter = tail->letter;
    if (asked->kind == int_bind) {
        PyObject *name = PyBytes_FromStringAndSize((const char *)bytes + 6, asked->text_end - 6);
        if (name == NULL)
            return -1;
        asked->named = PyDict_GetItemWithError(GET(session, session__shared), name);
        Py_DECREF(name);
        if (!IS(asked->named, named) || !IS_FLAG(asked->named, named_is_pending, Py_False) ||
            !IS(GET(asked->named, named_statement), shared))
            return 0;
    }
    return 1;
}

static PyObject *young(PyObject *verdicts, Py_ssize_t slot, PyObject *text)
{
    PyObject *memory = GET(verdicts, slot);
    return IS(memory, memory) ? PyDict_GetItemWithError(GET(memory, memory_young), text) : NULL;
}

/* VerdictCache.classify, of what is in its younger halves; borrowed, NULL for the rest. */
static PyObject *verdict_of(PyObject *session, const Asked *asked, PyObject *data)
{
    if (asked->named != NULL)
        return GET(GET(asked->named, named_statement), shared_verdict);
    PyObject *reader = GET(session, session__classify);
    if (!PyMethod_Check(reader) || PyMethod_GET_FUNCTION(reader) != classify || !IS(PyMethod_GET_SELF(reader), verdicts))
        return NULL;
    PyObject *verdicts = PyMethod_GET_SELF(reader);
    const char *bytes = PyBytes_AS_STRING(data);
    Py_ssize_t size = asked->text_end - asked->text_at;
    PyObject *text = PyBytes_FromStringAndSize(bytes + asked->text_at, size);
    if (text == NULL)
        return NULL;
    PyObject *verdict = young(verdicts, verdicts__texts, text);
    Py_DECREF(text);
    if (verdict != NULL || size > MAX_FOLDED || PyErr_Occurred())
        return verdict;
    PyObject *folded = PyBytes_FromStringAndSize(NULL, size);
    if (folded == NULL)
        return NULL;
    const unsigned char *table = (const unsigned char *)PyBytes_AS_STRING(fold);
    const unsigned char *from = (const unsigned char *)bytes + asked->text_at;
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(folded);
    for (Py_ssize_t i = 0; i < size; i++)
        to[i] = table[from[i]];
    verdict = young(verdicts, verdicts__folds, folded);
    Py_DECREF(folded);
    return verdict;
}

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
    if (reader != Py_None) {
        if (!IS(reader, reader) || !IS(GET(reader, reader__pool), pool_cache))
            return 0;
        if (GET(reader, reader__wanted) == wanted && GET(reader, reader__told) == told) {
            if (asked.is_limited)
                return 0;
            found = glance(client, session, reader, &asked, data);
            if (found != 0 || PyErr_Occurred())
                return found;
        }
        if (!IS_FLAG(GET(reader, reader__pool), pool_cache_caches_reads, Py_False))
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
        !IS_FLAG(state, state_noted, Py_None) || !IS_FLAG(state, state_usual, Py_True) ||
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
    if (out == NULL || op == NULL || PyList_SetSlice(idle, last, last + 1, NULL) < 0) {
        Py_DECREF(server);
        Py_XDECREF(out);
        Py_XDECREF(op);
        return -1;
    }
    /* From here on the server is the client's. */
    SET(server, server_pool_state, state_active);
    SET(client, client_server, server);
    SET(server, server_client, client);
    SET(state, state_client, session);
    SET(client, client_idle_sweeps, int_zero);
    SET(client, client_reading, is_read ? Py_True : Py_False);
    put(client, client_resend, op);
    int failed = compose(session, state, &asked, data, verdict) < 0 ||
                 count(GET(context, context_stats), stats_origin_round_trips) < 0 ||
                 write_to(GET(server, server_write), out) < 0;
    Py_DECREF(out);
    Py_DECREF(server);
    return failed ? -1 : 1;
}

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

/* As `ask`, for what a server says. */
static int answer(PyObject *server, PyObject *data)
{
    PyObject *state = GET(server, server_session), *client = GET(server, server_client);
    if (!IS(state, state) || !IS(client, client) || GET(client, client_server) != server ||
        !IS_FLAG(server, server__held, Py_None) || !IS_FLAG(server, server_filling, Py_None) ||
        !IS_FLAG(state, state_noted, Py_None) || !IS_FLAG(state, state_usual, Py_True) ||
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
