/* dying.c: an nbdkit plugin that serves a disk image as a failing disk and keeps a SIMULATED clock.
 *
 * Nothing sleeps: each request adds its cost to the clock, and the disk is dead (EIO at once, for everything) when the
 * clock passes life_s. So a run takes seconds, and "what was rescued before the disk died" can be compared between tools.
 *
 *   gcc -shared -fPIC -O2 dying.c -o dying.so
 *   nbdkit -f -t 1 -U dying.sock ./dying.so img=disk.raw faults=faults.txt stat=stat.txt life_s=600
 *
 * faults.txt, one a line, sectors of 512 bytes, both ends included; '#' comments:
 *   bad  A B        a read that touches it fails after bad_ms
 *   slow A B MS     each MiB read there costs MS more
 *   weak A B N      a read that touches it fails its first N times (after bad_ms), then reads well
 * Parameters (defaults): seek_ms=9 mb_s=120 bad_ms=3000 life_s=0 (never dies)
 * stat.txt, rewritten every 64 requests, on death and at the end: clock_s, reads, bad_reads, bytes_read (good), dead (0/1).
 *
 * For whoever measures, at no simulated cost:
 *   log=FILE        one struct entry for each request to a disk that lived when it came
 *   armed=FILE      until this file is there, reads are free and never fail: what the system itself looks at when a
 *                   device appears is none of the tool's doing
 *   marks=A,B,...   when the clock passes each of these seconds, in the middle of a request as death would come, the
 *   pause=FILE      file is made with the mark in it, and the request waits until somebody removes the file
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS
enum kind { BAD, SLOW, WEAK };
static struct fault {
    enum kind kind;
    int64_t first, last, arg;
    int64_t reach;                                            /* largest `last` of this one and all before it */
} *fault;                                                     /* by `first`, ascending */
static size_t nr_faults;
enum outcome { GOOD, FAILED, DIED };                          /* DIED: would have been good, but the disk died in it */
struct entry { double clock_ms; uint64_t pos; uint32_t len, outcome; }; /* clock_ms: when the request had been served */
static char *img, *faults, *stat_path, *log_path, *armed_path, *pause_path;
static const char *marks = "";
static FILE *log_file;
static int fd = -1, armed, told_death;
static int64_t size, head;                                    /* head: byte after the last request */
static double clock_ms, seek_ms = 9, mb_s = 120, bad_ms = 3000, life_s = 0;
static uint64_t reads, bad_reads, bytes_read;

static int config(const char *k, const char *v) {
    if (!strcmp(k, "img")) img = nbdkit_realpath(v);
    else if (!strcmp(k, "faults")) faults = nbdkit_realpath(v);
    else if (!strcmp(k, "stat")) stat_path = nbdkit_absolute_path(v);
    else if (!strcmp(k, "log")) log_path = nbdkit_absolute_path(v);
    else if (!strcmp(k, "armed")) armed_path = nbdkit_absolute_path(v);
    else if (!strcmp(k, "pause")) pause_path = nbdkit_absolute_path(v);
    else if (!strcmp(k, "marks")) marks = strdup(v);
    else if (!strcmp(k, "seek_ms")) seek_ms = atof(v);
    else if (!strcmp(k, "mb_s")) mb_s = atof(v);
    else if (!strcmp(k, "bad_ms")) bad_ms = atof(v);
    else if (!strcmp(k, "life_s")) life_s = atof(v);
    else { nbdkit_error("unknown parameter %s", k); return -1; }
    return 0;
}
static int dead(void) { return life_s > 0 && clock_ms > life_s * 1000; }
static void write_stat(void) {
    FILE *f = stat_path ? fopen(stat_path, "w") : NULL;
    if (!f) return;
    fprintf(f, "clock_s %.1f\nreads %lu\nbad_reads %lu\nbytes_read %lu\ndead %d\n",
            clock_ms / 1000, reads, bad_reads, bytes_read, dead());
    fclose(f);
}
static int by_first(const void *a, const void *b) {
    const struct fault *p = a, *q = b;
    return (p->first > q->first) - (p->first < q->first);
}
static int get_ready(void) {
    struct stat st;
    fd = img ? open(img, O_RDONLY) : -1;
    if (fd < 0 || fstat(fd, &st)) { nbdkit_error("cannot open img"); return -1; }
    size = st.st_size;
    FILE *f = faults ? fopen(faults, "r") : NULL;
    if (faults && !f) { nbdkit_error("cannot open faults"); return -1; }
    char line[256], kind[8];
    while (f && fgets(line, sizeof line, f)) {
        struct fault n = {0};
        if (line[0] == '#' || sscanf(line, "%7s %ld %ld %ld", kind, &n.first, &n.last, &n.arg) < 3) continue;
        n.kind = kind[0] == 'b' ? BAD : kind[0] == 's' ? SLOW : WEAK;
        fault = realloc(fault, (nr_faults + 1) * sizeof *fault);
        fault[nr_faults++] = n;
    }
    if (f) fclose(f);
    qsort(fault, nr_faults, sizeof *fault, by_first);
    int64_t reach = -1;
    for (size_t i = 0; i < nr_faults; i++) {
        if (fault[i].last > reach) reach = fault[i].last;
        fault[i].reach = reach;
    }
    if (log_path && !(log_file = fopen(log_path, "w"))) { nbdkit_error("cannot open log"); return -1; }
    armed = !armed_path;
    sigset_t end;                                             /* by which nbdkit --exit-with-parent ends */
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigprocmask(SIG_UNBLOCK, &end, NULL);                     /* whoever started us may have blocked it */
    return 0;
}
static int64_t get_size(void *h) { return size; }
static void *open_it(int readonly) { return NBDKIT_HANDLE_NOT_NEEDED; }
static int serve(void *buf, uint32_t count, uint64_t off) {
    if (pread(fd, buf, count, off) != (ssize_t)count) { nbdkit_set_error(EIO); return -1; }
    return 0;
}
/* Waits at each mark that the clock has passed. */
static void pause_at_marks(void) {
    while (pause_path && *marks && clock_ms > atof(marks) * 1000) {
        FILE *f = fopen(pause_path, "w");
        if (!f) return;
        fprintf(f, "%.0f\n", atof(marks));
        fclose(f);
        while (access(pause_path, F_OK) == 0 && nbdkit_nanosleep(0, 2000000) == 0) {}
        const char *comma = strchr(marks, ',');
        marks = comma ? comma + 1 : "";
    }
}
static int pread_it(void *h, void *buf, uint32_t count, uint64_t off, uint32_t flags) {
    int64_t first = off / 512, last = (off + count - 1) / 512;
    int failed = 0;
    if (!armed && !(armed = access(armed_path, F_OK) == 0)) return serve(buf, count, off);
    if (dead()) { nbdkit_set_error(EIO); return -1; }
    reads++;
    if ((int64_t)off != head) clock_ms += seek_ms;
    clock_ms += count / (mb_s * 1000);
    head = off + count;
    size_t low = 0, high = nr_faults;                         /* faults below `low` begin at or before `last` */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (fault[middle].first <= last) low = middle + 1; else high = middle;
    }
    for (size_t i = low; i-- > 0 && fault[i].reach >= first;) {
        struct fault *q = &fault[i];
        if (q->last < first) continue;
        if (q->kind == SLOW) clock_ms += q->arg * (count / 1048576.0);
        else if (q->kind == BAD || q->arg-- > 0) failed = 1;
    }
    if (failed) { clock_ms += bad_ms; bad_reads++; } else bytes_read += count;
    if (reads % 64 == 0) write_stat();
    if (log_file) {
        struct entry entry = { clock_ms, off, count, failed ? FAILED : dead() ? DIED : GOOD };
        fwrite(&entry, sizeof entry, 1, log_file);
    }
    pause_at_marks();
    if (dead() && !told_death) { told_death = 1; write_stat(); }
    if (failed || dead()) { nbdkit_set_error(EIO); return -1; }
    return serve(buf, count, off);
}
static int pwrite_it(void *h, const void *buf, uint32_t count, uint64_t off, uint32_t flags) {
    nbdkit_set_error(EPERM);                                  /* a dying disk is never written */
    return -1;
}
static void unload(void) { write_stat(); if (log_file) fclose(log_file); }
static struct nbdkit_plugin plugin = {
    .name = "dying", .config = config, .get_ready = get_ready, .unload = unload,
    .open = open_it, .get_size = get_size, .pread = pread_it, .pwrite = pwrite_it,
};
NBDKIT_REGISTER_PLUGIN(plugin)
