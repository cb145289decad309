/*
 * The closable word with stops, closes and flatten: one key, long POSITION lots.
 *
 * A close holds its lots in the word's low half; its fill subtracts from both halves at once, a stop's
 * or the merged exit's from the high half alone. The wish (exit_lots) and then the claim make the
 * router send one exit and cancel resting closes, newest first. What it fills is taken off the wish
 * before the fill is told, and the claim goes with the last of it. Events reach the keeper late, in
 * order.
 *
 * By default the venue enforces reduce-only. SHARED: other strategies hold lots of the same account,
 * so that reduce-only protects no single book: an exit leaves only once the cancels are observed, the
 * router looks at claim and word again before a close leaves, and nothing but a stop's fill may reach
 * beyond the own lots.
 */
#define POSITION 2
#define ORDERS 2
#ifdef SHARED
#define OTHERS 4
#else
#define OTHERS 0
#endif
#define NONE 0
#define HELD 1              /* granted, not yet sent */
#define RESTING 2
#define CANCELLING 3
#define GONE 4
#define LIVE(order) (state[order] != NONE && state[order] != GONE)
#define LESSER(a, b) ((a) < (b) -> (a) : (b))

mtype = { CLOSE, STOP, EXIT };
chan events = [3] of { mtype, byte, byte };     /* kind, filled, given back */

byte position = POSITION, pending;              /* one word: read and swapped together */
byte others = OTHERS, account = POSITION + OTHERS;
byte exit_lots, exit_filled, exit_at_venue, stop;
byte state[ORDERS], lots[ORDERS], made, target = POSITION;
bool exit_claim, exit_live, exit_told, exit_ended, stop_filled;

inline wish(wanted, then) {
    atomic { exit_lots = (exit_lots < wanted -> wanted : exit_lots);
             target = LESSER(target, then - wanted) };
    exit_claim = true
}

active proctype strategy() {
    byte wanted, was, held;
    do
    :: made < ORDERS ->
       if
       :: wanted = 1
       :: wanted = 2
       fi;
       atomic { was = position; held = pending };
       if
       :: wanted > was -> break
       :: wanted <= was && (exit_claim || wanted + held > was) -> wish(wanted, was); break
       :: else -> skip
       fi;
#ifdef HELD_BY_STORE
       atomic { position = was; pending = held + wanted };
#else
       if
       :: atomic { position == was && pending == held -> pending = held + wanted }
       :: else -> goto again
       fi;
#endif
       atomic { lots[made] = wanted; state[made] = HELD; made++ };
again: atomic { wanted = 0; was = 0; held = 0 }
    :: break
    od
}

active proctype breaker() {
    byte whole;
    if
    :: whole = position;
       if
       :: whole -> wish(whole, whole)
       :: else -> skip
       fi
    :: true
    fi
}

inline send(order) {
    if
#if defined(SHARED) && !defined(SENT_UNSEEN)
    :: exit_claim || pending > position -> events ! CLOSE, 0, lots[order]; state[order] = GONE
#endif
    :: else -> state[order] = RESTING
    fi
}

#define OVERBOOKED (held + LESSER(exit_lots, was) > was)

active proctype router() {
    byte was, held;
end:
    do
    :: state[0] == HELD -> send(0)
    :: state[1] == HELD -> send(1)
    :: exit_claim && !exit_live ->
       atomic { was = position; held = pending };
       if
       :: atomic { OVERBOOKED && state[1] == RESTING -> state[1] = CANCELLING }
       :: atomic { OVERBOOKED && state[1] != RESTING && state[0] == RESTING ->
                   state[0] = CANCELLING }
       :: else -> skip
       fi;
       if
       :: exit_lots == 0 || was == 0 ->
#ifdef CLAIM_CLEARED_LAST
          exit_lots = 0; exit_claim = false
#else
          exit_claim = false;
          if
          :: was == 0 -> exit_lots = 0
          :: was && exit_lots -> exit_claim = true
          :: else -> skip
          fi
#endif
#if defined(SHARED) && !defined(EXIT_AT_ONCE)
       :: exit_lots && was && OVERBOOKED -> skip
#endif
       :: else ->
          exit_live = true;
          exit_at_venue = LESSER(exit_lots, was)
       fi;
       atomic { was = 0; held = 0 }
    :: exit_told ->
#ifdef LOWERED_AFTER
       events ! EXIT, exit_filled, 0;
       atomic { exit_lots = exit_lots - LESSER(exit_lots, exit_filled) };
#else
       atomic { exit_lots = exit_lots - LESSER(exit_lots, exit_filled) };
       events ! EXIT, exit_filled, 0;
#endif
       atomic { exit_told = false; exit_filled = 0 }
    :: exit_ended && !exit_told -> atomic { exit_ended = false; exit_live = false }
    od
}

inline at_venue(order) {
    if
    :: (state[order] == RESTING || state[order] == CANCELLING) && lots[order] && account ->
       account--; lots[order]--; events ! CLOSE, 1, 0;
       if
       :: lots[order] == 0 -> state[order] = GONE
       :: else -> skip
       fi
    :: state[order] == CANCELLING || (state[order] == RESTING && account == 0) ->
       events ! CLOSE, 0, lots[order]; state[order] = GONE
    fi
}

active proctype venue() {
    byte filled;
    if
    :: stop = POSITION
    :: true
    fi;
end:
    do
    :: atomic { (state[0] == RESTING || state[0] == CANCELLING) && nfull(events) -> at_venue(0) }
    :: atomic { (state[1] == RESTING || state[1] == CANCELLING) && nfull(events) -> at_venue(1) }
    :: atomic { stop && account && nfull(events) ->
           filled = LESSER(stop, account);
           account = account - filled; stop = 0; stop_filled = true;
           events ! STOP, filled, 0; filled = 0 }
    :: atomic { exit_at_venue ->
           if
           :: filled = LESSER(exit_at_venue, account)
           :: filled = LESSER(1, account)
           fi;
           account = account - filled; exit_at_venue = 0;
           exit_filled = filled; exit_told = true; filled = 0 }
    od
}

active proctype keeper() {
    mtype kind;
    byte filled, rest, own;
end:
    do
    :: events ? kind, filled, rest ->
       atomic {
           own = LESSER(filled, position);
           assert(own == filled || stop_filled);
           position = position - own;
           others = others - (filled - own);
           if
           :: kind == CLOSE ->
              assert(pending >= filled + rest);
              pending = pending - filled - rest
#ifdef STOP_FROM_BOTH
           :: kind == STOP -> pending = pending - LESSER(pending, filled)
#endif
           :: else -> skip
           fi
       };
       if
       :: kind == EXIT -> exit_ended = true
       :: else -> skip
       fi;
       atomic { filled = 0; rest = 0; own = 0; kind = 0 }
    od
}

active proctype waiter() {
    timeout ->
    assert(position + others == account);
    assert(pending == 0 && !exit_claim && exit_lots == 0);
    assert(position <= target)
}
