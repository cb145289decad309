/* Tells a trace of everything that changes files below one folder, in the order it happened.
 *
 * Loaded into the writing process by LD_PRELOAD. Each call is made first and told afterwards, under
 * one lock, so that the trace has the order the kernel saw. SQLite's index of the write-ahead log
 * (-shm) is memory that happens to have a name; it is left out. Any other shared writable mapping
 * below the folder is told as UNSEEN, because its stores could not be recorded.
 *
 * TRIPGATE_TRACE_ROOT names the folder, TRIPGATE_TRACE_FILE the file to write to. After as many calls
 * as TRIPGATE_TRACE_LIFE says the process is killed. A trace that cannot be written ends it too: half
 * a trace would prove nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CLOSE, WRITE, TRUNCATE, SYNC, SYNC_FAILED, RENAME, UNLINK, FOLDER, UNSEEN };

struct told {
    uint32_t kind;
    int32_t descriptor;
    int64_t offset; /* or size, or whether a file was made anew */
    uint32_t text_bytes;
    uint32_t data_bytes;
};

#define DESCRIPTORS 4096
static char watched[DESCRIPTORS];
static char failing[256]; /* the next sync of a file whose name ends so fails, once */
static char names[DESCRIPTORS][512];
static const char *root;
static int trace = -1;
static long life = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("TRIPGATE_TRACE_FILE");
    root = getenv("TRIPGATE_TRACE_ROOT");
    if (!file || !root) abort();
    if (getenv("TRIPGATE_TRACE_LIFE")) life = atol(getenv("TRIPGATE_TRACE_LIFE"));
    trace = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) abort();
}

/* Makes the next sync of a file whose name ends in `suffix` fail with EIO; its data stays where it
 * is, and nobody knows whether it will ever be on the disk. */
void tripgate_fail_next_sync(const char *suffix) { strncpy(failing, suffix, sizeof failing - 1); }

static int ends_in(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && !strcmp(text + length - tail, end);
}

static int is_below(const char *path) {
    size_t length = strlen(root);
    return trace >= 0 && path && !strncmp(path, root, length)
        && (path[length] == '/' || !path[length]) && !ends_in(path, "-shm");
}

static int is_watched(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS && watched[descriptor];
}

static void tell(uint32_t kind, int descriptor, int64_t offset, const char *text, const void *data,
                 size_t data_bytes) {
    struct told head = {kind, descriptor, offset, (uint32_t)strlen(text), (uint32_t)data_bytes};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)text, strlen(text)},
                             {(void *)data, data_bytes}};
    ssize_t all = (ssize_t)(sizeof head + parts[1].iov_len + data_bytes);
    if (syscall(SYS_writev, trace, parts, 3) != all) abort();
    if (life > 0 && !--life) kill(getpid(), SIGKILL);
}

static int opened(int descriptor, const char *path, int is_new, int flags) {
    if (descriptor < 0 || descriptor >= DESCRIPTORS || !is_below(path)) return descriptor;
    watched[descriptor] = 1;
    strncpy(names[descriptor], path, sizeof names[descriptor] - 1);
    tell(OPEN, descriptor, is_new, path, "", 0);
    if (flags & O_TRUNC) tell(TRUNCATE, descriptor, 0, "", "", 0);
    return descriptor;
}

#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        pthread_mutex_lock(&lock); \
        int is_new = (flags & O_CREAT) && is_below(path) && access(path, F_OK); \
        int descriptor = opened(real(path, flags, mode), path, is_new, flags); \
        pthread_mutex_unlock(&lock); \
        return descriptor; \
    }
OPENING(open)
OPENING(open64)

int close(int descriptor) {
    REAL(int, "close", int);
    if (!is_watched(descriptor)) return real(descriptor);
    pthread_mutex_lock(&lock);
    watched[descriptor] = 0;
    tell(CLOSE, descriptor, 0, "", "", 0);
    int result = real(descriptor);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int descriptor, const void *data, size_t bytes) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!is_watched(descriptor)) return real(descriptor, data, bytes);
    pthread_mutex_lock(&lock);
    ssize_t done = real(descriptor, data, bytes);
    /* The position after the call is right for files opened for appending too. */
    if (done > 0)
        tell(WRITE, descriptor, lseek(descriptor, 0, SEEK_CUR) - done, "", data, (size_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define WRITING_AT(name) \
    ssize_t name(int descriptor, const void *data, size_t bytes, off_t offset) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        if (!is_watched(descriptor)) return real(descriptor, data, bytes, offset); \
        pthread_mutex_lock(&lock); \
        ssize_t done = real(descriptor, data, bytes, offset); \
        if (done > 0) tell(WRITE, descriptor, offset, "", data, (size_t)done); \
        pthread_mutex_unlock(&lock); \
        return done; \
    }
WRITING_AT(pwrite)
WRITING_AT(pwrite64)

#define CUTTING(name) \
    int name(int descriptor, off_t size) { \
        REAL(int, #name, int, off_t); \
        if (!is_watched(descriptor)) return real(descriptor, size); \
        pthread_mutex_lock(&lock); \
        int result = real(descriptor, size); \
        if (!result) tell(TRUNCATE, descriptor, size, "", "", 0); \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
CUTTING(ftruncate)
CUTTING(ftruncate64)

#define SYNCING(name) \
    int name(int descriptor) { \
        REAL(int, #name, int); \
        if (!is_watched(descriptor)) return real(descriptor); \
        pthread_mutex_lock(&lock); \
        int fails = failing[0] && ends_in(names[descriptor], failing); \
        int result = fails ? -1 : real(descriptor); \
        tell(result ? SYNC_FAILED : SYNC, descriptor, 0, "", "", 0); \
        if (fails) { failing[0] = 0; errno = EIO; } \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
SYNCING(fsync)
SYNCING(fdatasync)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    pthread_mutex_lock(&lock);
    int result = real(from, to);
    if (!result && (is_below(from) || is_below(to)))
        tell(RENAME, -1, 0, from, to, strlen(to));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    pthread_mutex_lock(&lock);
    int result = real(path);
    if (!result && is_below(path)) tell(UNLINK, -1, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    pthread_mutex_lock(&lock);
    int result = real(path, mode);
    if (!result && is_below(path)) tell(FOLDER, -1, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

#define MAPPING(name) \
    void *name(void *at, size_t bytes, int access, int flags, int descriptor, off_t offset) { \
        REAL(void *, #name, void *, size_t, int, int, int, off_t); \
        if (is_watched(descriptor) && (flags & MAP_SHARED) && (access & PROT_WRITE)) { \
            pthread_mutex_lock(&lock); \
            tell(UNSEEN, descriptor, 0, names[descriptor], "", 0); \
            pthread_mutex_unlock(&lock); \
        } \
        return real(at, bytes, access, flags, descriptor, offset); \
    }
MAPPING(mmap)
MAPPING(mmap64)
