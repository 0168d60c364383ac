/* What translated PTX is made of: memory that is looked after, and arithmetic as the PTX manual has it. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define GRANULE 2 /* bytes of shared memory that one entry of the shadow stands for */
#define SHARED_BYTES (256 << 10)
#define MAX_THREADS 1024
#define WARP 32

int ch_tid_x(void), ch_tid_y(void), ch_tid_z(void), ch_ntid_x(void), ch_ntid_y(void), ch_ntid_z(void);
int ch_ctaid_x(void), ch_ctaid_y(void), ch_ctaid_z(void), ch_nctaid_x(void), ch_nctaid_y(void), ch_nctaid_z(void);
int ch_shared_size(void), ch_barrier_count(int), ch_barrier_and(int), ch_barrier_or(int), ch_laneid(void);
void ch_barrier(void), ch_warp_sync(uint32_t);
uint64_t ch_shuffle(uint32_t, int, uint32_t, uint32_t, uint32_t), ch_vote(uint32_t, int, int);
extern char ch_shared_memory[];

/* set by the launch */
long ptx_static_shared;
int ptx_ranges;                  /* arrays that the kernel may touch */
uint64_t ptx_low[64], ptx_high[64];
int ptx_rough;                   /* approximate instructions err as the manual allows */
char ptx_fault[256];             /* the first thing that went wrong */

static int ptx_dynamic_smem_size(void) { return ch_shared_size() - ptx_static_shared; }
static int ptx_laneid(void) { return ch_laneid(); }

static int thread(void) { return ch_tid_x() + ch_ntid_x() * (ch_tid_y() + ch_ntid_y() * ch_tid_z()); }

static char nowhere[16] __attribute__((aligned(16)));

static __attribute__((noinline)) char *fault(const char *what, uint64_t address, int size)
{
    if (!ptx_fault[0])
        snprintf(ptx_fault, sizeof ptx_fault, "%s: %d bytes at 0x%llx, thread %d of block (%d,%d,%d)", what,
                 size, (unsigned long long)address, thread(), ch_ctaid_x(), ch_ctaid_y(), ch_ctaid_z());
    return nowhere;
}

/* Races: two threads touch the same shared memory, one of them writes, and nothing orders them. Lanes of a
 * warp are ordered by bar.warp.sync of the whole warp and by block barriers, other threads by the latter;
 * shuffles and votes order no memory. Lanes of a pixel write its common numbers together: a write of what
 * is there already is no race, and who wrote a number may read it. */
typedef struct { uint32_t warp, block, lanes; int warps; } when; /* warps: the one, or -1: several */
static struct { when write, read; } shadow[SHARED_BYTES / GRANULE];
static uint32_t warp_epoch[MAX_THREADS], block_epoch[MAX_THREADS], serial;

void ptx_block_begins(void)
{
    serial += 1 << 16; /* what earlier blocks did is past */
    for (int i = 0; i < MAX_THREADS; i++) warp_epoch[i] = block_epoch[i] = serial;
}

static void warp_sync(uint32_t mask)
{
    ch_warp_sync(mask);
    if (mask == 0xFFFFFFFFu) warp_epoch[thread()]++;
}

static int block_sync(int mode, int predicate)
{
    int result = 0;
    switch (mode) {
    case 1: result = ch_barrier_count(predicate); break;
    case 2: result = ch_barrier_and(predicate); break;
    case 3: result = ch_barrier_or(predicate); break;
    default: ch_barrier();
    }
    block_epoch[thread()]++;
    warp_epoch[thread()]++;
    return result;
}

/* Whether others did it with nothing between them and me. */
static int clash(const when *done, int me)
{
    if (done->block != block_epoch[me] || !done->lanes) return 0;
    if (done->warps != me / WARP) return 1;
    return done->warp == warp_epoch[me] && done->lanes & ~(1u << me % WARP);
}

static void note(when *done, int me, int changed)
{
    int fresh = changed || done->block != block_epoch[me] || done->warp != warp_epoch[me];
    int warps = done->block != block_epoch[me] || changed ? me / WARP : done->warps == me / WARP ? me / WARP : -1;
    *done = (when){warp_epoch[me], block_epoch[me], (fresh ? 0 : done->lanes) | 1u << me % WARP, warps};
}

static void look(uint64_t address, int size, const char *written)
{
    int me = thread();
    for (uint64_t at = address; at < address + size; at += GRANULE) {
        when *w = &shadow[at / GRANULE].write, *r = &shadow[at / GRANULE].read;
        if (!written) {
            int mine = w->warps == me / WARP && w->lanes >> me % WARP & 1 && w->warp == warp_epoch[me];
            if (!mine && clash(w, me)) fault("race, read after write", address, size);
            note(r, me, 0);
            continue;
        }
        int changes = memcmp(ch_shared_memory + at, written + (at - address), size < GRANULE ? size : GRANULE);
        if (changes && clash(w, me)) fault("race, write after write", address, size);
        if (changes && clash(r, me)) fault("race, write after read", address, size);
        note(w, me, changes);
    }
}

static char *shared_at(uint64_t address, int size, const void *written)
{
    if (address + size > (uint64_t)ch_shared_size()) return fault("outside shared memory", address, size);
    if (address % size) return fault("misaligned in shared memory", address, size);
    look(address, size, written);
    return ch_shared_memory + address;
}

static char *global_at(uint64_t address, int size)
{
    static int last;
    if (address % size) return fault("misaligned in global memory", address, size);
    if (address >= ptx_low[last] && address + size <= ptx_high[last]) return (char *)address;
    for (int i = 0; i < ptx_ranges; i++)
        if (address >= ptx_low[i] && address + size <= ptx_high[i]) {
            last = i;
            return (char *)address;
        }
    return fault("outside all arrays", address, size);
}

#define shared_reads(address, size) shared_at(address, size, 0)
#define shared_writes(address, size, value) shared_at(address, size, value)
#define global_reads(address, size) global_at(address, size)
#define global_writes(address, size, value) global_at(address, size)

static inline float as_f32(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
static inline double as_f64(uint64_t u) { double x; memcpy(&x, &u, 8); return x; }
static inline uint32_t bits_f32(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline uint64_t bits_f64(double x) { uint64_t u; memcpy(&u, &x, 8); return u; }
static inline float ftz(float x) { return bits_f32(x) & 0x7F800000 ? x : as_f32(bits_f32(x) & 0x80000000); }
static inline float saturated(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }

/* Rounded; with ptx_rough off by up to `most` units in the last place, by a hash of the value. */
static float rough(double exact, int most)
{
    float x = exact;
    uint32_t u = bits_f32(x), h = u * 2654435761u;
    if (!ptx_rough || !isnormal(x)) return x;
    h ^= h >> 15;
    return as_f32(u + (int)(h % (2 * most + 1)) - most);
}

static inline uint64_t inserted(uint64_t a, uint64_t b, uint32_t at, uint32_t n, int size)
{
    at &= 255, n &= 255;
    for (uint32_t i = 0; i < n && at + i < (uint32_t)size; i++)
        b = (b & ~(1ull << (at + i))) | ((a >> i & 1) << (at + i));
    return b;
}

static inline uint32_t permuted(uint32_t a, uint32_t b, uint32_t c)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t pick = c >> 4 * i & 15, byte = both >> 8 * (pick & 7) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        out |= byte << 8 * i;
    }
    return out;
}

/* Conversions to integers stop at the ends of the range; NaN is 0. */
static inline int32_t to_s32(double x) { return x != x ? 0 : x < -2147483648.0 ? INT32_MIN : x > 2147483647.0 ? INT32_MAX : x; }
static inline uint32_t to_u32(double x) { return x != x || x < 0 ? 0 : x > 4294967295.0 ? UINT32_MAX : x; }
static inline int64_t to_s64(double x) { return x != x ? 0 : x < -0x1p63 ? INT64_MIN : x >= 0x1p63 ? INT64_MAX : x; }
static inline uint64_t to_u64(double x) { return x != x || x < 0 ? 0 : x >= 0x1p64 ? UINT64_MAX : x; }
