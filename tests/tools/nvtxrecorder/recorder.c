/* An NVTX injection library: what a profiler attaches through, writing down what it is told.
 *
 * NVTX is header-only: a program that uses it loads the library named by NVTX_INJECTION64_PATH and
 * calls InitializeInjectionNvtx2 with a function that gives out tables of callbacks. Numbers and
 * layouts below are that interface's, version 3.
 *
 *   NVTX_RECORD   a folder; each process appends to PID.txt in it, one line per event:
 *                 thread, nanoseconds, "push", domain, category, ARGB, name  (tabs between)
 *                 thread, nanoseconds, "pop", domain
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CALLBACKS = 1, CORE2 = 5 };
enum { RANGE_PUSH = 4, RANGE_POP = 5, NAME_CATEGORY = 8, REGISTER_STRING = 10, DOMAIN_CREATE = 12 };
enum { REGISTERED = 3, CATEGORIES = 64 };

struct domain { char name[64]; char *category[CATEGORIES]; };

struct attributes {
    uint16_t version, size;
    uint32_t category;
    int32_t colour_type;
    uint32_t colour;
    int32_t payload_type, reserved;
    uint64_t payload;
    int32_t message_type;
    const char *message;
};

struct callbacks {
    size_t size;
    int (*table)(int module, void ****out, unsigned *entries);
};

static int record = -1;

static void say(const char *text, int length) {
    if (write(record, text, (size_t)length) != length) abort();
}

static int begin(char *line, size_t size) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return snprintf(line, size, "%ld\t%lld\t", syscall(SYS_gettid),
                    (long long)now.tv_sec * 1000000000 + now.tv_nsec);
}

static void *domain_create(const char *name) {
    struct domain *made = calloc(1, sizeof *made);
    snprintf(made->name, sizeof made->name, "%s", name);
    return made;
}

static void name_category(struct domain *d, uint32_t id, const char *name) {
    if (id < CATEGORIES) d->category[id] = strdup(name);
}

static const char *register_string(void *d, const char *text) { (void)d; return strdup(text); }

static int range_push(struct domain *d, const struct attributes *a) {
    char line[512];
    int n = begin(line, sizeof line);
    const char *category = d && a->category < CATEGORIES ? d->category[a->category] : NULL;
    n += snprintf(line + n, sizeof line - (size_t)n, "push\t%s\t%s\t%08x\t%s\n", d ? d->name : "",
                  category ? category : "", a->colour,
                  a->message_type == REGISTERED ? a->message : "?");
    say(line, n);
    return 0;
}

static int range_pop(struct domain *d) {
    char line[128];
    int n = begin(line, sizeof line);
    n += snprintf(line + n, sizeof line - (size_t)n, "pop\t%s\n", d ? d->name : "");
    say(line, n);
    return 0;
}

__attribute__((visibility("default")))
int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t)) {
    const struct callbacks *given = export_table(CALLBACKS);
    const char *folder = getenv("NVTX_RECORD");
    char path[4096];
    void ***table;
    unsigned entries;
    if (!folder || !given || !given->table(CORE2, &table, &entries) || entries <= DOMAIN_CREATE) return 0;
    snprintf(path, sizeof path, "%s/%d.txt", folder, getpid());
    record = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
    if (record < 0) return 0;
    *table[RANGE_PUSH] = (void *)range_push;
    *table[RANGE_POP] = (void *)range_pop;
    *table[NAME_CATEGORY] = (void *)name_category;
    *table[REGISTER_STRING] = (void *)register_string;
    *table[DOMAIN_CREATE] = (void *)domain_create;
    return 1;
}
