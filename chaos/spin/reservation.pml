/*
 * Reservation, reaper, unknown: two clients share a limit of one order.
 *
 * The entry word is state and token sequence together, changed by one compare-and-swap (commit.commit,
 * settle.reap). A deadline may pass at any moment. A request may be lost, or lie on the wire until
 * the venue's window, which began at t_signed, has passed. The router may stop anywhere, or be
 * replaced after its swap, when nobody knows whether the order was sent.
 */
#define FREE 0
#define RESERVING 1
#define RESERVED 2
#define COMMITTED 3
#define RELEASING 4
#define UNSENT 5

#define CLIENTS 2
#define ORDERS_MAX 2
#define LIMIT 1
#define TOKEN(client, sequence) ((client) * ORDERS_MAX + (sequence) - 1)

byte state[CLIENTS], sequence[CLIENTS], gross, exposure;
bool sent[4], wire[4], passed[4], live[4], ended[4];
chan submitted = [2] of { byte, byte };

active [CLIENTS] proctype client() {
    byte own = _pid;
    do
    :: sequence[own] < ORDERS_MAX && state[own] == FREE ->
       atomic { sequence[own]++; state[own] = RESERVING };
       if
       :: atomic { gross < LIMIT -> gross++ };
          state[own] = RESERVED;
          submitted ! own, sequence[own]
       :: gross >= LIMIT -> state[own] = FREE
       fi
    :: break
    od
}

active proctype router() {
    byte own, number;
end:
    do
    :: submitted ? own, number ->
#ifdef PLAIN_STORE
       if
       :: state[own] == RESERVED && sequence[own] == number -> state[own] = COMMITTED
       :: else -> goto end
       fi;
#else
       if
#ifdef STATE_ALONE
       :: atomic { state[own] == RESERVED -> state[own] = COMMITTED }
#else
       :: atomic { state[own] == RESERVED && sequence[own] == number -> state[own] = COMMITTED }
#endif
       :: else -> goto end
       fi;
#endif
       if
       :: atomic { state[own] == COMMITTED && sequence[own] == number -> state[own] = UNSENT }
       :: atomic { assert(!sent[TOKEN(own, number)]); sent[TOKEN(own, number)] = true };
#ifdef SIGNED_AT_SEND
          passed[TOKEN(own, number)] = false;
#endif
          wire[TOKEN(own, number)] = true
       :: skip
       fi
    od
}

active proctype venue() {
    byte token;
end:
    do
    :: atomic {
           if :: token = 0 :: token = 1 :: token = 2 :: token = 3 fi;
           if
           :: wire[token] ->
              wire[token] = false;
              if
              :: !passed[token] ->
                 live[token] = true;
                 exposure++;
                 assert(exposure <= LIMIT && gross >= exposure);
                 assert(state[token / 2] == COMMITTED && TOKEN(token / 2, sequence[token / 2]) == token)
              :: true
              fi
           :: live[token] -> live[token] = false; exposure--; ended[token] = true
           :: token < TOKEN(0, sequence[0] + 1) || (token >= 2 && token < TOKEN(1, sequence[1] + 1)) ->
              passed[token] = true
           :: else -> skip
           fi;
           token = 0
       }
    od
}

inline give_back(own) {
    state[own] = RELEASING;
    atomic { assert(gross > 0); gross-- };
    state[own] = FREE
}

active [CLIENTS] proctype keeper() {
    byte own = _pid % CLIENTS;
end:
    do
    /* The reaper: a deadline alone reaches RESERVED only. */
    :: atomic { state[own] == RESERVED -> state[own] = RELEASING }; give_back(own)
#ifdef REAPER_TAKES_COMMITTED
    :: atomic { state[own] == COMMITTED -> state[own] = RELEASING }; give_back(own)
#endif
    :: state[own] == UNSENT -> give_back(own)
    :: state[own] == COMMITTED && ended[TOKEN(own, sequence[own])] -> give_back(own)
    /* "Unknown order", asked after the window has passed and answered before it is believed. */
#ifdef FREED_ON_UNKNOWN
    :: state[own] == COMMITTED ->
#else
    :: state[own] == COMMITTED && passed[TOKEN(own, sequence[own])] ->
#endif
       if
       :: !live[TOKEN(own, sequence[own])] && !ended[TOKEN(own, sequence[own])] -> give_back(own)
       :: else -> skip
       fi
    od
}
