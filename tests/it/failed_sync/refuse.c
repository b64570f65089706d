/* Preloaded into a server: the n-th call that writes to or syncs a file below a directory fails with EIO and is not made.
 *
 * REFUSE_DIR  the directory
 * REFUSE_AT   n, counted from 1 over all threads; 0 lets every call through, and lists them in `calls`
 * REFUSE_MARKS  where `calls` goes, and `failed` (which call it was, before it fails) and `ended` (once the thread that
 *             made it has ended) */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long counted;
static long refused = -1;
static const char *dir, *marks;
static pthread_key_t failed_here;

static void mark(const char *name, const char *line, int how) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", marks, name);
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | how, 0600);
    if (file < 0 || syscall(SYS_write, file, line, strlen(line)) < 0) abort();
    close(file);
}

static void has_ended(void *unused) {
    (void)unused;
    mark("ended", "", 0);
}

__attribute__((constructor)) static void begin(void) {
    dir = getenv("REFUSE_DIR");
    marks = getenv("REFUSE_MARKS");
    const char *at = getenv("REFUSE_AT");
    if (dir && marks && at && !pthread_key_create(&failed_here, has_ended)) refused = atol(at);
}

static int is_refused(int file, const char *call) {
    char link[64], path[PATH_MAX], thread[16] = "", line[PATH_MAX + 64];
    if (refused < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    size_t shared = strlen(dir);
    if (strncmp(path, dir, shared) || (path[shared] && path[shared] != '/')) return 0;
    long n = atomic_fetch_add(&counted, 1) + 1;
    if (refused && n != refused) return 0;
    prctl(PR_GET_NAME, thread);
    snprintf(line, sizeof line, "%s %s/ by %s\n", call, path + shared, thread);
    if (!refused) {
        mark("calls", line, O_APPEND);
        return 0;
    }
    mark("failing", line, O_TRUNC);
    char from[PATH_MAX], to[PATH_MAX];
    snprintf(from, sizeof from, "%s/failing", marks);
    snprintf(to, sizeof to, "%s/failed", marks);
    pthread_setspecific(failed_here, "");
    if (rename(from, to)) abort();
    errno = EIO;
    return 1;
}

ssize_t write(int file, const void *from, size_t len) {
    return is_refused(file, "write") ? -1 : syscall(SYS_write, file, from, len);
}

ssize_t pwrite64(int file, const void *from, size_t len, off64_t at) {
    return is_refused(file, "pwrite64") ? -1 : syscall(SYS_pwrite64, file, from, len, at);
}

ssize_t pwrite(int file, const void *from, size_t len, off_t at) {
    return pwrite64(file, from, len, at);
}

int fsync(int file) {
    return is_refused(file, "fsync") ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    return is_refused(file, "fdatasync") ? -1 : (int)syscall(SYS_fdatasync, file);
}

int ftruncate64(int file, off64_t len) {
    return is_refused(file, "ftruncate") ? -1 : (int)syscall(SYS_ftruncate, file, len);
}

int ftruncate(int file, off_t len) {
    return ftruncate64(file, len);
}
