/*
 * Lease and fence: how late can an order reach the venue after the last useful input?
 *
 * An actor reads the clock, then an input, then renews its lease. A client stamps t_signed, reads
 * the clock, then the lease (judge.admit, levels_and_leases); the router looks at the lease again
 * (commit.why_not_send); the venue takes nothing signed longer ago than its window. Any of them may
 * stop between any two steps for any time, or for good: a process simply need not move. The venue's
 * clock lags by SKEW, the worst it may.
 */
#define LEASE 2
#define WINDOW 2
#define SKEW 1
#define NOW_MAX 9
#define ORDERS_MAX 2

#ifdef SHORTER_BOUND
#define BOUND (LEASE + WINDOW + SKEW - 1)
#else
#define BOUND (LEASE + WINDOW + SKEW)
#endif

byte now, fed_at, deadline;

active proctype clock() {
    do
    :: now < NOW_MAX -> now++
    :: else -> break
    od
}

active proctype actor() {
    byte clock_read;
    do
    :: clock_read = now;
       fed_at = now;
#ifdef LEASE_FROM_WRITE
       clock_read = now;
#endif
       deadline = clock_read + LEASE
    :: break
    od
}

active proctype order() {
    byte t_signed, now_read, made;
    do
    :: made < ORDERS_MAX ->
       made++;
       t_signed = now;
       now_read = now;
       if
       :: deadline > now_read -> skip
       :: else -> goto again
       fi;
#ifdef SIGNED_AFTER_CHECK
       t_signed = now;
#endif
#ifndef ONE_LOOK
       now_read = now;
       if
       :: deadline > now_read -> skip
       :: else -> goto again
       fi;
#endif
#ifdef SIGNED_AT_SEND
       t_signed = now;
#endif
       atomic {
           if
#ifdef NO_VENUE_WINDOW
           :: true
#else
           :: now <= t_signed + WINDOW + SKEW
#endif
              -> assert(now < fed_at + BOUND)
           :: else -> skip
           fi
       };
again: skip
    :: break
    od
}
