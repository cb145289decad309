/*
 * Repair with a stopped holder: one node's sum, one closable word, an opening and an exiting client,
 * a router, and two keepers in turn. Whoever stops simply does not move; the clients and the first
 * keeper may be killed between any two steps.
 *
 * A change is a section: own counter odd, read the freeze word, change, counter even. A repair
 * freezes, waits until the counters are even (killing whoever stays odd), makes every word equal to
 * what the tables say, thaws. An exit never waits: it counts itself in `unposted` before it reads the
 * freeze word again, and then takes the closable word and an entry marked UNPOSTED, which the keeper
 * posts later (section.enter_exit, repair, settle).
 */
#define FREE 0
#define RESERVING 1
#define RESERVED 2
#define COMMITTED 3
#define RELEASING 4
#define OPENER 0            /* numbers of slots; each client has one entry */
#define EXITER 1
#define KEEPER 2
#define LIMIT 2
#define EXITS_MAX 2

#define ENTER(slot) section[slot] = 1
#define LEAVE(slot) section[slot] = 0
#define LIVE(entry) (state[entry] == RESERVED || state[entry] == COMMITTED)
#define TAKEN(entry) (state[entry] >= RESERVED -> charged[entry] : 0)
#define TABLES (TAKEN(OPENER) + (unposted_bit -> 0 : TAKEN(EXITER)))
#define HOLDS (LIVE(EXITER) -> 1 : 0)
#ifdef EXITS_ONLY
#define QUIET(slot) (slot == OPENER || ended[slot] || !alive[slot])
#elif defined(OPENINGS_ONLY)
#define QUIET(slot) (slot == EXITER || ended[slot] || !alive[slot])
#else
#define QUIET(slot) (ended[slot] || !alive[slot])
#endif
#define DIED_INSIDE ((!alive[OPENER] && section[OPENER]) || \
                     (!alive[EXITER] && (section[EXITER] || exit_section % 2)))

bit section[2], freeze;
byte exit_section, exits, sum, state[2], charged[2];
short unposted, pending;
bool unposted_bit;          /* of the exiter's entry word: it changes with the state, in one swap */
bool alive[4] = true, ended[2], sent, finished;

#ifndef EXITS_ONLY
active proctype opener() provided (alive[OPENER]) {
    byte uncounted;         /* the exit that stood UNPOSTED when the section began */
    do
    :: state[OPENER] == FREE ->
#ifdef FREEZE_READ_FIRST
       if
       :: freeze == 0 -> ENTER(OPENER)
       :: else -> goto again
       fi;
#else
       ENTER(OPENER);
       if
       :: atomic { freeze == 0 -> uncounted = (unposted_bit && LIVE(EXITER) -> exits : 0) }
       :: else -> LEAVE(OPENER); goto again
       fi;
#endif
#ifndef UNPOSTED_IGNORED
       if
       :: unposted == 0 -> skip
       :: else -> LEAVE(OPENER); goto again
       fi;
#endif
       state[OPENER] = RESERVING;
       if
       :: atomic { sum < LIMIT -> sum++; assert(!(uncounted == exits && exits && unposted_bit)) }
       :: sum >= LIMIT -> goto rolled_back
       fi;
       if
       :: sum-- ->         /* the generation had moved */
rolled_back:
          state[OPENER] = FREE
       :: charged[OPENER] = 1; state[OPENER] = RESERVED
       fi;
       LEAVE(OPENER);
again: uncounted = 0
    :: break
    od;
    ended[OPENER] = true
}
#endif

#ifndef OPENINGS_ONLY
active proctype exiter() provided (alive[EXITER]) {
    bool frozen;
    do
    :: exits < EXITS_MAX && state[EXITER] == FREE ->
start: ENTER(EXITER);
       if
       :: freeze == 0 -> skip
       :: else ->
          LEAVE(EXITER);
#ifdef COUNTED_OUTSIDE
          unposted++;
#else
          exit_section++;
          unposted++;
#endif
          if
          :: freeze == 0 ->
             unposted--;
#ifndef COUNTED_OUTSIDE
             exit_section++;
#endif
             goto start
          :: else -> frozen = true
          fi;
#ifdef COUNTED_OUTSIDE
          exit_section++
#endif
       fi;
       atomic { state[EXITER] = RESERVING; unposted_bit = frozen; charged[EXITER] = 1; exits++ };
       if
       :: pending++;
          if
          :: !frozen -> sum++
          :: else -> skip
          fi;
          state[EXITER] = RESERVED
       :: atomic { state[EXITER] = FREE; unposted_bit = false };    /* held by others: refused */
          if
          :: frozen -> unposted--
          :: else -> skip
          fi
       fi;
       if
       :: !frozen -> LEAVE(EXITER)
       :: else -> exit_section++; frozen = false
       fi
    :: break
    od;
    ended[EXITER] = true
}
#endif

active proctype router() {
end:
    do
    :: atomic { state[EXITER] == RESERVED && !sent -> state[EXITER] = COMMITTED; sent = true }
    od
}

inline count_again(word, expected) {
    do
    :: atomic { seen = exit_section; old = word };
       if
       :: exit_section % 2 && !dead[EXITER] -> alive[EXITER] = false; goto repair
       :: else -> new = expected
       fi;
#ifdef PLAIN_STORE
       word = new; break
#else
       if
       :: atomic { word == old && seen == exit_section -> word = new }; break
       :: else -> skip
       fi
#endif
    od
}

inline wait_even(slot) {
    do
    :: !section[slot] || !alive[slot] -> break
    :: else -> alive[slot] = false          /* SIGKILL through its pidfd */
    od
}

inline settle_entry(entry) {
    if
    :: dead[entry] && state[entry] == RESERVING -> atomic { state[entry] = FREE; unposted_bit = unposted_bit && entry != EXITER }
    :: state[entry] == RELEASING -> charged[entry] = 0; state[entry] = FREE
    :: else -> skip
    fi
}

inline give_back(entry) {
    charged[entry] = 0;
    sum--;
    if
    :: entry == EXITER -> pending--
    :: else -> skip
    fi;
    state[entry] = FREE
}

proctype keeper(byte own) provided (alive[own]) {
    byte seen;
    short old, new;
    bool dead[2];
repair:
    freeze = 1;
#ifndef NO_WAIT
    wait_even(OPENER);
    wait_even(EXITER);
#endif
    atomic { dead[OPENER] = !alive[OPENER]; dead[EXITER] = !alive[EXITER] };
    settle_entry(OPENER);
    settle_entry(EXITER);
    count_again(pending, HOLDS);
    sum = TABLES;
    count_again(unposted, unposted_bit);
    if
    :: dead[OPENER] -> LEAVE(OPENER)
    :: else -> skip
    fi;
    if
#ifdef ENDED_IF_DEAD
    :: !alive[EXITER] -> LEAVE(EXITER); exit_section = 0
#else
    :: dead[EXITER] -> LEAVE(EXITER); exit_section = 0
#endif
    :: else -> skip
    fi;
    atomic { dead[OPENER] = false; dead[EXITER] = false; old = 0; new = 0; seen = 0; freeze = 0 };
    do
    :: DIED_INSIDE -> goto repair
    :: state[OPENER] == RESERVED -> state[OPENER] = RELEASING; give_back(OPENER)
    :: atomic { state[EXITER] == RESERVED && !unposted_bit -> state[EXITER] = RELEASING; assert(!sent) };
       give_back(EXITER)
    :: atomic { state[EXITER] == COMMITTED && !unposted_bit -> state[EXITER] = RELEASING; sent = false };
       give_back(EXITER)
    :: LIVE(EXITER) && unposted_bit ->
       sum++;
#ifdef POSTED_BY_STORE
       old = state[EXITER];
       atomic { state[EXITER] = old; old = 0; unposted_bit = false };
#else
       unposted_bit = false;
#endif
       unposted--
    :: QUIET(OPENER) && QUIET(EXITER) && !DIED_INSIDE &&
       !unposted_bit ->
       break
    od;
    assert(sum == TABLES && pending == HOLDS && unposted == 0);
    finished = true
}

active proctype root() {
    run keeper(KEEPER);
    if
    :: !alive[KEEPER] && !finished -> run keeper(KEEPER + 1)
    :: finished
    fi
}

#if defined(EXITS_ONLY) || defined(OPENINGS_ONLY)
active proctype killer() {
    if
    :: !finished -> alive[OPENER] = false
    :: true
    fi;
    if
    :: !finished -> alive[EXITER] = false
    :: true
    fi;
    if
    :: atomic { !finished -> alive[KEEPER] = false }
    :: true
    fi
}
#endif

active proctype waiter() {
    timeout -> assert(finished)
}

never {
    do
    :: assert(sum >= TABLES && pending >= HOLDS)
    od
}
