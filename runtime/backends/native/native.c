/* Runs a graph as native_program.py wrote it down: a list of instructions over memory that stays
   where it is. Nothing is checked here: shapes were, when the file was loaded, and who wrote the
   list keeps its memory alive. There are no globals that change, so that threads may run lists at
   once.

   It needs a compiler that knows vectors of GNU C (GCC, Clang) and the standard library, nothing of
   Python. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#if FLT_EVAL_METHOD != 0
#error "floats are rounded to codes by additions in float"
#endif

/* Before rounding half to even by addition: floats from here on are integers. */
#define ROUND 12582912.0f
#define PANEL 16
#define AXES 6

typedef int64_t word;

/* Codes of 8 bits, in steps from the one that stands for 0. */
struct codes {
    float least, most, zero;
};

enum {
    END,
    COPY_FLOATS,
    COPY_CODES,
    CODES_TO_FLOATS,
    FLOATS_TO_CODES,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    LEAST,
    MOST,
    LOGARITHM,
    ENCODE,
    DECODE,
    PRODUCT,
    CONVOLVE,
    QUADS,
    PAIRS,
    GATHER,
    SOFTMAX,
    SIGMOID,
};

typedef void loop(word, char *, word, const char *, word, const char *, word);
typedef void product(word, word, word, const float *, word, const float *, const float *, float *,
                     word);
typedef void layer(word, word, word, const uint8_t *, word, const int8_t *, const int32_t *,
                   const int32_t *, const float *, struct codes, uint8_t *);

/* Loops over an axis: `out`, `a` and `b` with their steps in bytes. */
#define LOOP(name, T_OUT, T_A, T_B, expression)                                                    \
    TARGET static void NAME(name)(word n, char *out, word so, const char *a, word sa,              \
                                  const char *b, word sb)                                          \
    {                                                                                              \
        if (so == sizeof(T_OUT) && sa == sizeof(T_A) && (sb == 0 || sb == sizeof(T_B))) {          \
            T_OUT *o = (T_OUT *)out;                                                               \
            const T_A *p = (const T_A *)a;                                                         \
            const T_B *q = (const T_B *)b;                                                         \
            if (sb == 0) {                                                                         \
                T_B y = *q;                                                                        \
                for (word i = 0; i < n; i++) {                                                     \
                    T_A x = p[i];                                                                  \
                    (void)y;                                                                       \
                    o[i] = expression;                                                             \
                }                                                                                  \
            } else                                                                                 \
                for (word i = 0; i < n; i++) {                                                     \
                    T_A x = p[i];                                                                  \
                    T_B y = q[i];                                                                  \
                    (void)y;                                                                       \
                    o[i] = expression;                                                             \
                }                                                                                  \
        } else                                                                                     \
            for (word i = 0; i < n; i++, out += so, a += sa, b += sb) {                            \
                T_A x = *(const T_A *)a;                                                           \
                T_B y = *(const T_B *)b;                                                           \
                (void)y;                                                                           \
                *(T_OUT *)out = expression;                                                        \
            }                                                                                      \
    }

/* Beyond the codes a conversion would not be defined. */
static inline uint8_t to_code(float x)
{
    x = x > 0 ? x : 0;
    return (uint8_t)(int32_t)(x < 255 ? x : 255);
}

/* Defines a function that computes codes out[rows, columns] of the sums of codes left[rows, inner]
   times weights in panels, whose inputs lie in groups. `places` is how much of `order` is of a
   panel. */
#define LAYER(name, group, places)                                                                 \
    TARGET static void name(word rows, word columns, word inner, const uint8_t *left, word step,   \
                            const int8_t *right, const int32_t *order, const int32_t *bias,        \
                            const float *scale, struct codes codes, uint8_t *out)                  \
    {                                                                                              \
        for (word column = 0; column < columns; column += PANEL) {                                 \
            word width = columns - column < PANEL ? columns - column : PANEL, row = 0;             \
            for (; row + ROWS <= rows; row += ROWS)                                                \
                name##_block(ROWS, inner, left + row * step, step, right, order, bias + column,    \
                             scale + column, codes, out + row * columns + column, columns, width); \
            for (; row + 2 <= rows; row += 2)                                                      \
                name##_block(2, inner, left + row * step, step, right, order, bias + column,       \
                             scale + column, codes, out + row * columns + column, columns, width); \
            if (row < rows)                                                                        \
                name##_block(1, inner, left + row * step, step, right, order, bias + column,       \
                             scale + column, codes, out + row * columns + column, columns, width); \
            right += (inner + group - 1) / group * group * PANEL;                                  \
            order += places;                                                                       \
        }                                                                                          \
    }

/* What any processor of the kind runs. */
#define NAME(name) name##_any
#define TARGET
#define LANES 4
#if defined(__aarch64__)
#define ROWS 4
#else
#define ROWS 2
#endif
#include "kernels.h"

static inline __attribute__((always_inline)) void
convolve_block(const int rows, word inner, const uint8_t *left, word step, const int8_t *right,
               const int32_t *order, const int32_t *bias, const float *scale, struct codes codes,
               uint8_t *out, word out_step, word width)
{
    (void)order;
    /* A product, 255 times -128 at most, fits in 16 bits. */
#if defined(__aarch64__)
    int32x4_t sums[ROWS][PANEL / 4] = {0};
    for (word place = 0; place < inner; place++, right += PANEL) {
        int8x16_t weights = vld1q_s8(right);
        int16x8_t low = vmovl_s8(vget_low_s8(weights)), high = vmovl_s8(vget_high_s8(weights));
        for (int row = 0; row < rows; row++) {
            int16_t one = left[row * step + place];
            sums[row][0] = vmlal_n_s16(sums[row][0], vget_low_s16(low), one);
            sums[row][1] = vmlal_n_s16(sums[row][1], vget_high_s16(low), one);
            sums[row][2] = vmlal_n_s16(sums[row][2], vget_low_s16(high), one);
            sums[row][3] = vmlal_n_s16(sums[row][3], vget_high_s16(high), one);
        }
    }
#else
    uint32_t sums[ROWS][PANEL] = {0};
    for (word place = 0; place < inner; place++, right += PANEL)
        for (int row = 0; row < rows; row++) {
            int16_t one = left[row * step + place];
            for (int lane = 0; lane < PANEL; lane++)
                sums[row][lane] += (uint32_t)(int16_t)(one * right[lane]);
        }
#endif
    for (int row = 0; row < rows; row++)
        store_codes_any((const int32_t *)sums[row], bias, scale, codes, out + row * out_step,
                        width);
}

LAYER(convolve, 1, 0)
#undef NAME
#undef TARGET
#undef LANES
#undef ROWS

/* What only some have. `quads` is `convolve` by four inputs at a time: weights
   [columns / PANEL][inner / 4][PANEL][4], a quad for every four inputs. */
#if defined(__x86_64__)
#include "x86.h"
#elif defined(__aarch64__)
#include "arm.h"
#endif

/* Axes, the last first, then for each its length and the steps of `out`, `a` and `b`. */
static const word *run_loop(loop *inner, const word *at)
{
    word axes = *at++, counts[AXES] = {0};
    char *out = (char *)(intptr_t)at[0];
    const char *a = (const char *)(intptr_t)at[1], *b = (const char *)(intptr_t)at[2];
    const word *first = at + 3, *end = first + 4 * axes;
    for (;;) {
        inner(first[0], out, first[1], a, first[2], b, first[3]);
        const word *axis = first + 4;
        word place = 1;
        for (; axis < end; axis += 4, place++) {
            out += axis[1], a += axis[2], b += axis[3];
            if (++counts[place] < axis[0])
                break;
            counts[place] = 0;
            out -= axis[0] * axis[1], a -= axis[0] * axis[2], b -= axis[0] * axis[3];
        }
        if (axis >= end)
            return end;
    }
}

static void softmax(word rows, word labels, const float *x, float *out)
{
    for (; rows--; x += labels, out += labels) {
        float top = x[0], sum = 0;
        for (word i = 1; i < labels; i++)
            top = x[i] > top ? x[i] : top;
        for (word i = 0; i < labels; i++)
            sum += out[i] = expf(x[i] - top);
        for (word i = 0; i < labels; i++)
            out[i] /= sum;
    }
}

#define POINTER(type, place) ((type *)(intptr_t)at[place])

static struct codes codes_of(const float *limits)
{
    return (struct codes){limits[0], limits[1], limits[2]};
}

static int always(void) { return 1; }
static inline int never(void) { return 0; }

/* Kinds of processors, what has more behind what has less: whether this is one, how they take the
   weights of quantized layers, and the functions for it. */
struct kind {
    int (*here)(void);
    int layout;
    layer *quantized;
    product *floats;
    loop *const *loops;
};

static const struct kind kinds[] = {
    {always, CONVOLVE, convolve, product_any, loops_any},
#if defined(__x86_64__)
    {has_avx2, PAIRS, pairs, product_avx2, loops_avx2},
#if defined(AVX_VNNI)
    {has_avx_vnni, QUADS, quads, product_avx2, loops_avx2},
#else
    {never, END, convolve, product_any, loops_any},
#endif
#if defined(AVX512_VNNI)
    {has_avx512_vnni, QUADS, quads_wide, product_wide, loops_wide},
#endif
#elif defined(__aarch64__)
    {has_dot_products, QUADS, quads, product_any, loops_any},
#endif
};

/* Of the lists below, as in native_library.py. */
int earmark_native_format(void) { return 3; }

/* How a kind of processor takes the weights of quantized layers: an instruction; END where this
   processor is not of that kind, and -1 where there is none. */
int earmark_native_layout(int kind)
{
    if (kind >= (int)(sizeof kinds / sizeof *kinds))
        return -1;
    return kinds[kind].here() ? kinds[kind].layout : END;
}

/* Run a list by what a kind of processor has. */
void earmark_native_run(const word *at, int kind)
{
    const struct kind *by = kinds + kind;
    for (;;) {
        word operation = *at++;
        switch (operation) {
        case END:
            return;
        case PRODUCT:
            by->floats(at[0], at[1], at[2], POINTER(const float, 3), at[4], POINTER(const float, 5),
                       POINTER(const float, 6), POINTER(float, 7), at[8]);
            at += 9;
            break;
        case CONVOLVE:
        case QUADS:
        case PAIRS:
            (operation == CONVOLVE ? convolve : by->quantized)(
                at[0], at[1], at[2], POINTER(const uint8_t, 3), at[4], POINTER(const int8_t, 5),
                POINTER(const int32_t, 10), POINTER(const int32_t, 6), POINTER(const float, 7),
                codes_of(POINTER(const float, 8)), POINTER(uint8_t, 9));
            at += 11;
            break;
        case GATHER: {
            /* outer, places, bytes, source, its step, its step along the places, places, out */
            const char *source = POINTER(const char, 3);
            char *out = POINTER(char, 7);
            const word *places = POINTER(const word, 6);
            for (word outer = 0; outer < at[0]; outer++, source += at[4])
                for (word place = 0; place < at[1]; place++, out += at[2])
                    memcpy(out, source + places[place] * at[5], at[2]);
            at += 8;
            break;
        }
        case SOFTMAX:
            softmax(at[0], at[1], POINTER(const float, 2), POINTER(float, 3));
            at += 4;
            break;
        case SIGMOID:
            for (word i = 0; i < at[0] * at[1]; i++)
                POINTER(float, 3)[i] = 0.5f * tanhf(0.5f * POINTER(const float, 2)[i]) + 0.5f;
            at += 4;
            break;
        default:
            at = run_loop(by->loops[operation], at);
        }
    }
}
