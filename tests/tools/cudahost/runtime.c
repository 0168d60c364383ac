/* "CUDA on one CPU core": one fiber per CUDA thread, blocks run one after another.
 *
 * A kernel's own LLVM IR, compiled for this CPU, calls the ch_* functions where the GPU would read a
 * special register, wait at a barrier or exchange values inside a warp. A fiber that waits yields to
 * the scheduler in ch_launch; a barrier or warp operation completes when all its participants have
 * arrived, so divergent or missing ones show as a deadlock, not as luck.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define STACK_BYTES (256 << 10)
#define SHARED_BYTES (256 << 10)
#define GUARD_BYTES 4096
#define MAX_THREADS 1024
#define WARP 32

enum state { READY, AT_BARRIER, AT_WARP_OP, DONE };
enum warp_op { OP_NONE, OP_SHUFFLE, OP_VOTE, OP_SYNC };
enum vote { VOTE_ALL, VOTE_ANY, VOTE_EQUAL, VOTE_BALLOT };
enum barrier { BARRIER_PLAIN, BARRIER_COUNT, BARRIER_AND, BARRIER_OR };

#if defined(__x86_64__)
/* Switching by hand: swapcontext asks the kernel for signal masks, which is most of its time. */
typedef void *context;
void ch_switch(context *from, context to);
__asm__(".text\n.globl ch_switch\n.type ch_switch,@function\nch_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size ch_switch,.-ch_switch\n");
#define SWITCH(from, to) ch_switch(&(from), (to))
static context new_context(void *stack, void (*entry)(void))
{
    void **top = (void **)((char *)stack + STACK_BYTES);
    *--top = 0; /* keeps the stack aligned as behind a call */
    *--top = (void *)entry;
    return top - 6;
}
#else
typedef ucontext_t context;
#define SWITCH(from, to) swapcontext(&(from), &(to))
static context new_context(void *stack, void (*entry)(void))
{
    context c;
    getcontext(&c);
    c.uc_stack.ss_sp = stack;
    c.uc_stack.ss_size = STACK_BYTES;
    c.uc_link = 0;
    makecontext(&c, entry, 0);
    return c;
}
#endif

typedef struct {
    context context;
    void *stack;
    int x, y, z;
    enum state state;
    /* warp operation: what this lane asked for, and the answer */
    enum warp_op op;
    int mode;
    uint32_t mask, value, offset, clamp, result;
    int predicate;
    /* barrier */
    enum barrier barrier_mode;
    int barrier_predicate, barrier_result;
} fiber;

static fiber *fibers, *current;
static int fiber_count, block_dim[3], grid_dim[3], block_index[3];
static context scheduler;
static void (*kernel)(void **);
static void **arguments;
char ch_shared_memory[SHARED_BYTES + GUARD_BYTES] __attribute__((aligned(64)));
static long shared_size, switches, warnings;
static char message[256];
static int backwards; /* threads run from the last to the first: a race gives another result */

static void run_fiber(void)
{
    kernel(arguments);
    current->state = DONE;
    SWITCH(current->context, scheduler);
}

static void wait_as(enum state state)
{
    current->state = state;
    switches++;
    SWITCH(current->context, scheduler);
}

/* special registers */
int ch_tid_x(void) { return current->x; }
int ch_tid_y(void) { return current->y; }
int ch_tid_z(void) { return current->z; }
int ch_ntid_x(void) { return block_dim[0]; }
int ch_ntid_y(void) { return block_dim[1]; }
int ch_ntid_z(void) { return block_dim[2]; }
int ch_ctaid_x(void) { return block_index[0]; }
int ch_ctaid_y(void) { return block_index[1]; }
int ch_ctaid_z(void) { return block_index[2]; }
int ch_nctaid_x(void) { return grid_dim[0]; }
int ch_nctaid_y(void) { return grid_dim[1]; }
int ch_nctaid_z(void) { return grid_dim[2]; }
int ch_laneid(void) { return (int)(current - fibers) % WARP; }
int ch_warpsize(void) { return WARP; }
int ch_shared_size(void) { return (int)shared_size; }

/* barriers and warp operations */
static int barrier(enum barrier mode, int predicate)
{
    current->barrier_mode = mode;
    current->barrier_predicate = predicate != 0;
    wait_as(AT_BARRIER);
    return current->barrier_result;
}

void ch_barrier(void) { barrier(BARRIER_PLAIN, 0); }
int ch_barrier_count(int p) { return barrier(BARRIER_COUNT, p); }
int ch_barrier_and(int p) { return barrier(BARRIER_AND, p); }
int ch_barrier_or(int p) { return barrier(BARRIER_OR, p); }

void ch_warp_sync(uint32_t mask)
{
    current->op = OP_SYNC;
    current->mask = mask;
    wait_as(AT_WARP_OP);
}

uint64_t ch_shuffle(uint32_t mask, int mode, uint32_t value, uint32_t offset, uint32_t clamp)
{
    current->op = OP_SHUFFLE;
    current->mask = mask;
    current->mode = mode;
    current->value = value;
    current->offset = offset;
    current->clamp = clamp;
    wait_as(AT_WARP_OP);
    return (uint64_t)current->result | ((uint64_t)current->predicate << 32);
}

uint64_t ch_vote(uint32_t mask, int mode, int predicate)
{
    current->op = OP_VOTE;
    current->mask = mask;
    current->mode = mode;
    current->value = predicate != 0;
    wait_as(AT_WARP_OP);
    return (uint64_t)current->result | ((uint64_t)current->predicate << 32);
}

static int in_mask(uint32_t mask, int lane) { return (mask >> lane) & 1; }

/* Source lane of a shuffle, as the PTX manual computes it; *inside says whether it is in range. */
static int shuffle_source(const fiber *f, int lane, int *inside)
{
    int offset = f->offset & 31, clamp = f->clamp & 31, segment = (f->clamp >> 8) & 31;
    int highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment, source;
    switch (f->mode) {
    case 1: source = lane - offset; *inside = source >= highest; break; /* up */
    case 2: source = lane + offset; *inside = source <= highest; break; /* down */
    case 3: source = lane ^ offset; *inside = source <= highest; break; /* butterfly */
    default: source = lowest | (offset & ~segment & 31); *inside = source <= highest; /* index */
    }
    return *inside ? source : lane;
}

/* Whether every lane that `f` waits for waits at the same operation. */
static int all_arrived(const fiber *lanes, int n, const fiber *f)
{
    for (int j = 0; j < n; j++)
        if (in_mask(f->mask, j) && lanes[j].state != DONE
            && (lanes[j].state != AT_WARP_OP || lanes[j].mask != f->mask || lanes[j].op != f->op))
            return 0;
    return 1;
}

static void complete(fiber *lanes, int n, uint32_t mask)
{
    uint32_t ballot = 0;
    int all = 1;
    for (int j = 0; j < n; j++)
        if (in_mask(mask, j) && lanes[j].state == AT_WARP_OP) {
            if (lanes[j].value) ballot |= 1u << j;
            else all = 0;
        }
    for (int j = 0; j < n; j++) {
        fiber *f = lanes + j;
        if (!in_mask(mask, j) || f->state != AT_WARP_OP) continue;
        if (f->op == OP_SHUFFLE) {
            int s = shuffle_source(f, j, &f->predicate);
            int there = s < n && in_mask(mask, s) && lanes[s].state != DONE;
            f->result = there ? lanes[s].value : 0xDEADBEEFu; /* undefined on a GPU: be loud */
        } else if (f->op == OP_VOTE) {
            f->result = ballot;
            f->predicate = f->mode == VOTE_ALL ? all
                         : f->mode == VOTE_ANY ? ballot != 0
                         : f->mode == VOTE_EQUAL ? (all || !ballot) : 0;
        }
    }
    for (int j = 0; j < n; j++)
        if (in_mask(mask, j) && lanes[j].state == AT_WARP_OP) lanes[j].state = READY;
}

static int advance_warp(int first)
{
    fiber *lanes = fibers + first;
    int n = fiber_count - first < WARP ? fiber_count - first : WARP, progress = 0;
    for (int i = 0; i < n; i++) {
        if (lanes[i].state != AT_WARP_OP) continue;
        if (!in_mask(lanes[i].mask, i)) {
            snprintf(message, sizeof message, "lane %d is not in its own mask %08x", i, lanes[i].mask);
            continue;
        }
        if (all_arrived(lanes, n, lanes + i)) {
            complete(lanes, n, lanes[i].mask);
            progress = 1;
        }
    }
    return progress;
}

static int count(enum state state)
{
    int n = 0;
    for (int i = 0; i < fiber_count; i++) n += fibers[i].state == state;
    return n;
}

static void open_barrier(int exited)
{
    int sum = 0, all = 1;
    for (int i = 0; i < fiber_count; i++)
        if (fibers[i].state == AT_BARRIER) {
            sum += fibers[i].barrier_predicate;
            all &= fibers[i].barrier_predicate;
        }
    for (int i = 0; i < fiber_count; i++)
        if (fibers[i].state == AT_BARRIER) {
            enum barrier mode = fibers[i].barrier_mode;
            fibers[i].barrier_result = mode == BARRIER_COUNT ? sum : mode == BARRIER_AND ? all : sum != 0;
            fibers[i].state = READY;
        }
    if (exited) {
        warnings++;
        snprintf(message, sizeof message, "%d threads left block %d before a barrier", exited,
                 block_index[0]);
    }
}

static int run_block(void)
{
    for (;;) {
        int ran = 0;
        for (int i = 0; i < fiber_count; i++)
            if (fibers[backwards ? fiber_count - 1 - i : i].state == READY) {
                current = fibers + (backwards ? fiber_count - 1 - i : i);
                SWITCH(scheduler, current->context);
                ran = 1;
            }
        for (int first = 0; first < fiber_count; first += WARP) ran |= advance_warp(first);
        int done = count(DONE), waiting = count(AT_BARRIER);
        if (done == fiber_count) return 0;
        if (done + waiting == fiber_count) open_barrier(done);
        else if (!ran) {
            snprintf(message, sizeof message,
                     "deadlock in block (%d,%d,%d): %d at a barrier, %d at a warp operation, %d done",
                     block_index[0], block_index[1], block_index[2], waiting, count(AT_WARP_OP), done);
            return -1;
        }
    }
}

static void start_block(int with_fibers)
{
    for (int i = 0; i < fiber_count; i++) {
        fiber *f = fibers + i;
        f->x = i % block_dim[0];
        f->y = i / block_dim[0] % block_dim[1];
        f->z = i / block_dim[0] / block_dim[1];
        f->state = READY;
        f->op = OP_NONE;
        if (!with_fibers) { /* nothing to wait for: a plain loop is 100x faster */
            current = f;
            kernel(arguments);
            f->state = DONE;
            continue;
        }
        f->context = new_context(f->stack, run_fiber);
    }
}

/* Whether the block wrote behind its dynamic shared memory. */
static int check_guard(void)
{
    for (int i = 0; i < GUARD_BYTES; i++)
        if (ch_shared_memory[shared_size + i] != (char)0xFF) {
            snprintf(message, sizeof message, "block (%d,%d,%d) wrote %d bytes behind its shared memory",
                     block_index[0], block_index[1], block_index[2], i);
            return -3;
        }
    return 0;
}

const char *ch_message(void) { return message; }
void ch_order(int last_first) { backwards = last_first; }
long ch_switches(void) { return switches; }
long ch_warnings(void) { return warnings; }

int ch_launch(void (*function)(void **), void **args, const int *grid, const int *block,
              long dynamic_shared, void (*poison)(void), int with_fibers)
{
    kernel = function;
    arguments = args;
    memcpy(grid_dim, grid, sizeof grid_dim);
    memcpy(block_dim, block, sizeof block_dim);
    shared_size = dynamic_shared;
    message[0] = 0;
    switches = warnings = 0;
    fiber_count = block[0] * block[1] * block[2];
    if (fiber_count > MAX_THREADS || dynamic_shared > SHARED_BYTES) {
        snprintf(message, sizeof message, "%d threads or %ld bytes of shared memory are too many",
                 fiber_count, dynamic_shared);
        return -2;
    }
    fibers = calloc(fiber_count, sizeof(fiber));
    if (with_fibers)
        for (int i = 0; i < fiber_count; i++)
            fibers[i].stack = mmap(0, STACK_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int rc = 0, *b = block_index;
    for (b[2] = 0; b[2] < grid[2] && !rc; b[2]++)
        for (b[1] = 0; b[1] < grid[1] && !rc; b[1]++)
            for (b[0] = 0; b[0] < grid[0] && !rc; b[0]++) {
                poison(); /* shared memory holds NaNs and -1 until the block writes it */
                memset(ch_shared_memory, 0xFF, dynamic_shared + GUARD_BYTES);
                start_block(with_fibers);
                if (with_fibers) rc = run_block();
                if (!rc) rc = check_guard();
            }
    if (with_fibers)
        for (int i = 0; i < fiber_count; i++) munmap(fibers[i].stack, STACK_BYTES);
    free(fibers);
    return rc;
}

/* the part of libdevice that kernels use */
#define F1(name, value) float name(float x) { return value; }
#define F2(name, value) float name(float x, float y) { return value; }
#define D1(name, value) double name(double x) { return value; }
#define D2(name, value) double name(double x, double y) { return value; }
F1(__nv_rsqrtf, 1.0f / sqrtf(x))
F1(__nv_frsqrt_rn, 1.0f / sqrtf(x))
F1(__nv_sqrtf, sqrtf(x))
F1(__nv_fsqrt_rn, sqrtf(x))
F1(__nv_frcp_rn, 1.0f / x)
F1(__nv_fabsf, fabsf(x))
F1(__nv_expf, expf(x))
F1(__nv_fast_expf, expf(x))
F1(__nv_logf, logf(x))
F1(__nv_fast_logf, logf(x))
F1(__nv_floorf, floorf(x))
F1(__nv_ceilf, ceilf(x))
F1(__nv_rintf, rintf(x))
F1(__nv_nearbyintf, rintf(x))
F1(__nv_roundf, roundf(x))
F1(__nv_truncf, truncf(x))
F1(__nv_saturatef, x != x ? 0.f : x < 0 ? 0.f : x > 1 ? 1.f : x)
F2(__nv_fminf, fminf(x, y))
F2(__nv_fmaxf, fmaxf(x, y))
F2(__nv_fast_fdividef, x / y)
F2(__nv_fdiv_rn, x / y)
F2(__nv_powf, powf(x, y))
F2(__nv_fmodf, fmodf(x, y))
F2(__nv_copysignf, copysignf(x, y))
D1(__nv_sqrt, sqrt(x))
D1(__nv_rsqrt, 1.0 / sqrt(x))
D1(__nv_fabs, fabs(x))
D1(__nv_floor, floor(x))
D1(__nv_ceil, ceil(x))
D1(__nv_rint, rint(x))
D2(__nv_fmin, fmin(x, y))
D2(__nv_fmax, fmax(x, y))
D2(__nv_pow, pow(x, y))
float __nv_fmaf(float a, float b, float c) { return fmaf(a, b, c); }
float __nv_fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
double __nv_fma(double a, double b, double c) { return fma(a, b, c); }
int __nv_isnanf(float x) { return x != x; }
int __nv_isnand(double x) { return x != x; }
int __nv_isinff(float x) { return isinf(x); }
int __nv_isinfd(double x) { return isinf(x); }
int __nv_finitef(float x) { return isfinite(x); }
int __nv_isfinited(double x) { return isfinite(x); }
int __nv_float2int_rn(float x) { return (int)rintf(x); }
int __nv_float2int_rd(float x) { return (int)floorf(x); }
int __nv_popc(int x) { return __builtin_popcount((unsigned)x); }
int __nv_ffs(int x) { return __builtin_ffs(x); }
int __nv_clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
int __nv_float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
float __nv_int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
