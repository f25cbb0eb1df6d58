/* The express lane: a read that the cache lets pass, as its text is another each time. See `_lane.c`. */

#ifndef HYPERDRIVE_LANE_PASS_H
#define HYPERDRIVE_LANE_PASS_H

#include "_lane_asked.h"

/* Reader.answer while the cache serves reads, and Reader._is_passed: is there a chance that `passes` says yes? The rest has been looked at,
   and `glance` has found nothing. */
static int may_pass(PyObject *reader, const Asked *asked, int is_settled)
{
    return is_settled && asked->kind == int_query && IS_FLAG(GET(reader, reader__pool), pool_cache_caches_reads, Py_True);
}

/* Reader.passes, which is Python's: what a text may do is decided there, and with a yes it has been counted. So this is the last look of
   all, and whoever hears 1 has to send it. 0: nothing has happened. -1: a fault. */
static int passes(PyObject *reader, PyObject *data, PyObject *verdict)
{
    PyObject *said = PyObject_CallMethodObjArgs(reader, str_passes, data, verdict, NULL);
    if (said == NULL)
        return -1;
    int yes = said == Py_True;
    Py_DECREF(said);
    return yes;
}

#endif
