/* An NVML that shows GPUs which do not exist, as the environment describes them:
 *
 *   FAKE_NVML_GPUS      how many, default 2
 *   FAKE_NVML_MEMORY    bytes of each, separated by commas, the last one for all that follow; 24 GiB
 *   FAKE_NVML_FREE      bytes free of each, likewise; default seven eighths
 *   FAKE_NVML_MIG       instances of each, likewise; default 0, a GPU that is not in MIG mode
 *   FAKE_NVML_CPUS      mask of the CPUs next to every GPU; default 3
 *   FAKE_NVML_BUSY      per cent busy: one number per reading, again from the first; default 42
 *   FAKE_NVML_WATTS     of each; default 100
 *   FAKE_NVML_CLOCK     MHz of its multiprocessors now; default 1500 of 1980 at most
 *   FAKE_NVML_SLOWED    bits of what holds its clocks back; default 0
 *   FAKE_NVML_CC        compute capability, 90 for 9.0; default 90
 *   FAKE_NVML_CUDA      newest CUDA of the driver, 13000 for 13.0; default 13000
 *   FAKE_NVML_ECC       errors that could not be corrected, of each; unset: a GPU without ECC
 *   FAKE_NVML_BROKEN    set: nvmlInit fails as it does without a driver
 *
 * A handle is a small number: GPU in the low byte (from 1), MIG instance in the next one (from 1).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, NO_DRIVER = 9 };
typedef uintptr_t handle;

static unsigned long long entry(const char *name, int k, unsigned long long otherwise) {
    const char *text = getenv(name);
    if (!text || !*text) return otherwise;
    unsigned long long value = 0;
    for (int i = 0; i <= k; i++) {
        char *end;
        value = strtoull(text, &end, 0);
        if (*end != ',') break;
        text = end + 1;
    }
    return value;
}

static int gpus(void) { return (int)entry("FAKE_NVML_GPUS", 0, 2); }
static int gpu(handle h) { return (int)(h & 0xff) - 1; }
static int instance(handle h) { return (int)(h >> 8 & 0xff) - 1; }
static int instances(int k) { return (int)entry("FAKE_NVML_MIG", k, 0); }

static void name_of(handle h, char *out, unsigned size) {
    if (instance(h) < 0) snprintf(out, size, "GPU-00000000-0000-4000-8000-%012d", gpu(h));
    else snprintf(out, size, "MIG-00000000-0000-4000-8000-%06d%06d", gpu(h), instance(h));
}

static unsigned long long total(handle h) {
    unsigned long long all = entry("FAKE_NVML_MEMORY", gpu(h), 24ull << 30);
    return instance(h) < 0 ? all : all / instances(gpu(h));
}

static unsigned long long available(handle h) {
    unsigned long long all = entry("FAKE_NVML_MEMORY", gpu(h), 24ull << 30);
    unsigned long long left = entry("FAKE_NVML_FREE", gpu(h), all - all / 8);
    return instance(h) < 0 ? left : left / instances(gpu(h));
}

int nvmlInit_v2(void) { return getenv("FAKE_NVML_BROKEN") ? NO_DRIVER : OK; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case OK: return "Success";
    case INVALID: return "Invalid Argument";
    case UNSUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case NO_DRIVER: return "Driver Not Loaded";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *out, unsigned n) { snprintf(out, n, "580.00"); return OK; }
int nvmlSystemGetNVMLVersion(char *out, unsigned n) { snprintf(out, n, "13.580.00"); return OK; }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = (int)entry("FAKE_NVML_CUDA", 0, 13000); return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }

int nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)gpus(); return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned k, handle *out) {
    if ((int)k >= gpus()) return INVALID;
    *out = k + 1;
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle *out) {
    char name[64];
    for (int k = 0; k < gpus(); k++)
        for (int i = 0; i <= instances(k); i++) {
            *out = (handle)(k + 1) | (handle)i << 8;
            name_of(*out, name, sizeof name);
            if (!strcmp(name, uuid)) return OK;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetIndex(handle h, unsigned *out) { *out = (unsigned)gpu(h); return OK; }
int nvmlDeviceGetUUID(handle h, char *out, unsigned n) { name_of(h, out, n); return OK; }
int nvmlDeviceGetName(handle h, char *out, unsigned n) { (void)h; snprintf(out, n, "Imaginary GPU"); return OK; }

struct memory { unsigned long long total, free, used; };
struct memory2 { unsigned version; unsigned long long total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo(handle h, struct memory *out) {
    out->total = total(h);
    out->free = available(h);
    out->used = out->total - out->free;
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(handle h, struct memory2 *out) {
    out->total = total(h);
    out->reserved = 0;
    out->free = available(h);
    out->used = out->total - out->free;
    return OK;
}

int nvmlDeviceGetMigMode(handle h, unsigned *now, unsigned *later) {
    if (!getenv("FAKE_NVML_MIG")) return UNSUPPORTED;
    *now = *later = instances(gpu(h)) > 0;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *out) {
    *out = instances(gpu(h)) ? 7 : 0;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned i, handle *out) {
    if ((int)i >= instances(gpu(h))) return NOT_FOUND;
    *out = (h & 0xff) | (handle)(i + 1) << 8;
    return OK;
}

int nvmlDeviceIsMigDeviceHandle(handle h, unsigned *out) { *out = instance(h) >= 0; return OK; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle h, handle *out) { *out = h & 0xff; return OK; }

int nvmlDeviceGetCpuAffinity(handle h, unsigned n, unsigned long *out) {
    (void)h;
    memset(out, 0, n * sizeof *out);
    out[0] = (unsigned long)entry("FAKE_NVML_CPUS", 0, 3);
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(handle h, int *major, int *minor) {
    int cc = (int)entry("FAKE_NVML_CC", gpu(h), 90);
    *major = cc / 10;
    *minor = cc % 10;
    return OK;
}

struct rates { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(handle h, struct rates *out) {
    static unsigned readings;
    const char *text = getenv("FAKE_NVML_BUSY");
    unsigned numbers = 1;
    if (instance(h) >= 0) return UNSUPPORTED;
    for (const char *p = text; p && *p; p++) numbers += *p == ',';
    out->gpu = (unsigned)entry("FAKE_NVML_BUSY", (int)(readings++ % numbers), 42);
    out->memory = 7;
    return OK;
}

static unsigned long long watts(handle h) { return entry("FAKE_NVML_WATTS", gpu(h), 100); }

int nvmlDeviceGetPowerUsage(handle h, unsigned *out) {
    if (instance(h) >= 0) return UNSUPPORTED;
    *out = (unsigned)watts(h) * 1000;
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(handle h, unsigned long long *out) {
    struct timespec now;
    if (instance(h) >= 0) return UNSUPPORTED;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *out = watts(h) * ((unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000);
    return OK;
}

int nvmlDeviceGetTemperature(handle h, int which, unsigned *out) { (void)h; (void)which; *out = 50; return OK; }
int nvmlDeviceGetClockInfo(handle h, int which, unsigned *out) {
    *out = which ? (unsigned)entry("FAKE_NVML_CLOCK", gpu(h), 1500) : 1200;
    return OK;
}
int nvmlDeviceGetMaxClockInfo(handle h, int which, unsigned *out) { (void)h; (void)which; *out = 1980; return OK; }

static int slowed(handle h, unsigned long long *out) { *out = entry("FAKE_NVML_SLOWED", gpu(h), 0); return OK; }
int nvmlDeviceGetCurrentClocksEventReasons(handle h, unsigned long long *out) { return slowed(h, out); }
int nvmlDeviceGetCurrentClocksThrottleReasons(handle h, unsigned long long *out) { return slowed(h, out); }

int nvmlDeviceGetEccMode(handle h, unsigned *now, unsigned *later) {
    (void)h;
    if (!getenv("FAKE_NVML_ECC")) return UNSUPPORTED;
    *now = *later = 1;
    return OK;
}

int nvmlDeviceGetTotalEccErrors(handle h, int kind, int counter, unsigned long long *out) {
    (void)counter;
    if (!getenv("FAKE_NVML_ECC")) return UNSUPPORTED;
    *out = kind == 1 ? entry("FAKE_NVML_ECC", gpu(h), 0) : 0;
    return OK;
}

static int no_processes(unsigned *count) { *count = 0; return OK; }
int nvmlDeviceGetComputeRunningProcesses(handle h, unsigned *n, void *out) { (void)h; (void)out; return no_processes(n); }
int nvmlDeviceGetComputeRunningProcesses_v2(handle h, unsigned *n, void *out) { (void)h; (void)out; return no_processes(n); }
int nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *n, void *out) { (void)h; (void)out; return no_processes(n); }
