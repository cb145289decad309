/*
 * Trip versus restart: no grant can follow a completed trip until an operator has resumed.
 *
 * The breaker stores the level in the page, then adds 1 to the trip generation (level.set_level), then
 * logs it. A check reads generation, closed and level, reserves, and reads closed and generation again
 * (opening.take). The tree may die between any two steps; the page then survives it, or is lost
 * with the machine and its clients. A restart closes the page, takes the larger of the page's level
 * and the log's, and only then opens; without the old page it begins at MEDIUM ("recovered").
 */
#define NORMAL 0
#define MEDIUM 2
#define HARD 3
#define TRIPS_MAX 2
#define DEATHS_MAX 2

byte level, generation, log_level, trips, deaths, losses;
bool closed = true, page_lost = true;
bool tripped, armed;    /* what an observer knows: a trip has completed and nobody has resumed */

#define DIE if :: deaths < DEATHS_MAX -> deaths++; goto death :: skip fi

active proctype tree() {
    byte before;
start:
#ifndef OPEN_AT_RESTART
    closed = true;
#endif
    DIE;
    before = log_level;
#ifndef LEVEL_FROM_LOG
    if
    :: level > before -> before = level
    :: else -> skip
    fi;
#endif
#ifndef LOST_PAGE_AT_LOG
    if
    :: page_lost && armed && before < MEDIUM -> before = MEDIUM
    :: else -> skip
    fi;
#endif
    DIE;
    level = before;
    generation++;
    log_level = before;
    DIE;
    armed = true; page_lost = false; closed = false;
    do
    :: trips < TRIPS_MAX && level < HARD ->
       trips++;
#ifdef GENERATION_FIRST
       generation++;
       level = HARD;
       tripped = true;
#else
       level = HARD;
       DIE;
       atomic { generation++; tripped = true };
#endif
       DIE;
       log_level = HARD
    /* A resume: the operator's record first, then the level. */
    :: level >= MEDIUM -> log_level = NORMAL; DIE; atomic { level = NORMAL; tripped = false }
    :: DIE; break
    od;
    goto done;
death:
    if
    :: skip
    :: atomic {
           losses++; page_lost = true; level = NORMAL; generation = 0;
#ifdef OPEN_AT_RESTART
           closed = false
#else
           closed = true
#endif
       }
    fi;
    before = 0;
    goto start;
done: skip
}

active proctype client() {
    byte seen, age;
    bool late;
end:
    do
    :: atomic { seen = generation; age = losses };    /* a client dies with its page */
       if
       :: closed -> goto denied
       :: else -> skip
       fi;
       if
       :: level >= MEDIUM -> goto denied
       :: else -> skip
       fi;
       /* The second reading decides; `late` notes what had happened by then. */
#ifdef ONE_READING
       atomic { late = tripped && age == losses };
#else
       if
       :: atomic { generation == seen && age == losses -> late = tripped }
       :: else -> goto denied
       fi;
#endif
       if
       :: closed || age != losses -> goto denied
       :: else -> skip
       fi;
       assert(!late);
denied: atomic { seen = 0; age = 0; late = false }
    od
}
