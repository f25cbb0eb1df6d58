/* What a client asks, recognised by its bytes; and its verdict, if that is known. See `_lane.c`. */

#ifndef HYPERDRIVE_LANE_ASKED_H
#define HYPERDRIVE_LANE_ASKED_H

#include "_lane_objects.h"

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

#endif
