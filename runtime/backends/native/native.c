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

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
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
    GATHER,
    SOFTMAX,
    SIGMOID,
};

typedef void loop(word, char *, word, const char *, word, const char *, word);

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
   times weights in panels, whose inputs lie in groups. */
#define LAYER(name, group)                                                                         \
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
            order += group == 1 ? 0 : 1 + (inner + group - 1) / group;                             \
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

LAYER(convolve, 1)
#undef NAME
#undef TARGET
#undef LANES
#undef ROWS

/* What only some have. `quads` is `convolve` by four inputs at a time: weights
   [columns / PANEL][inner / 4][PANEL][4], a quad for every four inputs. `order`
   [columns / PANEL][1 + inner / 4] has the number of pairs of quads that come first, then the first
   input of each pair and after them of each quad that is left. AVX2 adds products of two inputs,
   and of a pair those of four, in 16 bits: who wrote the list has seen that they hold them. */
#if defined(__x86_64__)
#define NAME(name) name##_vectors
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define ROWS 4
#include "kernels.h"

/* The sums of two products and two more for each of eight outputs. */
TARGET static inline __attribute__((always_inline)) __m256i by_two(const uint8_t *inputs,
                                                                   const int8_t *weights)
{
    int32_t four;
    memcpy(&four, inputs, sizeof four);
    return _mm256_maddubs_epi16(_mm256_set1_epi32(four),
                                _mm256_loadu_si256((const __m256i *)weights));
}

TARGET static inline __attribute__((always_inline)) void
quads_block(const int rows, word inner, const uint8_t *left, word step, const int8_t *right,
            const int32_t *order, const int32_t *bias, const float *scale, struct codes codes,
            uint8_t *out, word out_step, word width)
{
    __m256i sums[ROWS][2], ones = _mm256_set1_epi16(1);
    for (int row = 0; row < rows; row++)
        sums[row][0] = sums[row][1] = _mm256_setzero_si256();
    const int32_t *place = order + 1, *end = place + order[0];
    for (; place < end; place++, right += 8 * PANEL)
        for (int row = 0; row < rows; row++)
            for (int half = 0; half < 2; half++) {
                const uint8_t *inputs = left + row * step + *place;
                const int8_t *weights = right + half * 2 * PANEL;
                __m256i some = _mm256_add_epi16(by_two(inputs, weights),
                                                by_two(inputs + 4, weights + 4 * PANEL));
                sums[row][half] = _mm256_add_epi32(sums[row][half], _mm256_madd_epi16(some, ones));
            }
    end += (inner + 3) / 4 - 2 * order[0];
    for (; place < end; place++, right += 4 * PANEL)
        for (int row = 0; row < rows; row++)
            for (int half = 0; half < 2; half++) {
                __m256i some = by_two(left + row * step + *place, right + half * 2 * PANEL);
                sums[row][half] = _mm256_add_epi32(sums[row][half], _mm256_madd_epi16(some, ones));
            }
    __m256 least = _mm256_set1_ps(codes.least), most = _mm256_set1_ps(codes.most);
    __m256i zero = _mm256_set1_epi32((int32_t)codes.zero);
    for (int row = 0; row < rows; row++) {
        for (int half = 0; half < 2; half++) {
            /* As store_codes: half to even is how the processor rounds. */
            __m256i whole =
                _mm256_add_epi32(sums[row][half], _mm256_loadu_si256((const __m256i *)bias + half));
            __m256 steps =
                _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_loadu_ps(scale + 8 * half));
            steps = _mm256_min_ps(_mm256_max_ps(steps, least), most);
            sums[row][half] = _mm256_add_epi32(_mm256_cvtps_epi32(steps), zero);
        }
        /* Packing takes each half of 128 bits by itself. */
        __m256i packed = _mm256_packs_epi32(sums[row][0], sums[row][1]);
        packed = _mm256_permute4x64_epi64(packed, 0xd8);
        __m128i bytes =
            _mm_packus_epi16(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
        uint8_t spare[PANEL];
        _mm_storeu_si128((__m128i *)(width < PANEL ? spare : out + row * out_step), bytes);
        if (width < PANEL)
            memcpy(out + row * out_step, spare, width);
    }
}

LAYER(quads, 4)
#elif defined(__aarch64__)
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define ROWS 4
#define product_vectors product_any
#define loops_vectors loops_any

TARGET static inline __attribute__((always_inline)) void
quads_block(const int rows, word inner, const uint8_t *left, word step, const int8_t *right,
            const int32_t *order, const int32_t *bias, const float *scale, struct codes codes,
            uint8_t *out, word out_step, word width)
{
    /* Its products are of signed numbers: inputs are taken less 128, which `extra` makes good. */
    int32x4_t sums[ROWS][PANEL / 4] = {0}, extra[PANEL / 4] = {0};
    int8x16_t half = vdupq_n_s8(-128);
    for (word quad = 0; quad < (inner + 3) / 4; quad++, right += 4 * PANEL) {
        int paired = quad < 2 * order[0];
        word place = paired ? order[1 + quad / 2] + quad % 2 * 4 : order[1 + quad - order[0]];
        int8x16_t weights[PANEL / 4];
        for (int part = 0; part < PANEL / 4; part++) {
            weights[part] = vld1q_s8(right + 16 * part);
            extra[part] = vdotq_s32(extra[part], weights[part], half);
        }
        for (int row = 0; row < rows; row++) {
            uint32_t four;
            memcpy(&four, left + row * step + place, sizeof four);
            int8x16_t inputs = vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080));
            for (int part = 0; part < PANEL / 4; part++)
                sums[row][part] = vdotq_s32(sums[row][part], weights[part], inputs);
        }
    }
    for (int row = 0; row < rows; row++) {
        int32_t whole[PANEL];
        for (int part = 0; part < PANEL / 4; part++)
            vst1q_s32(whole + 4 * part, vsubq_s32(sums[row][part], extra[part]));
        store_codes_any(whole, bias, scale, codes, out + row * out_step, width);
    }
}

LAYER(quads, 4)
#else
#define quads convolve
#define product_vectors product_any
#define loops_vectors loops_any
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

/* Of the lists below, as in native_library.py. */
int earmark_native_format(void) { return 2; }

/* Whether this processor has what `vectors` below asks for. */
int earmark_native_vectors(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined(__aarch64__) && defined(__APPLE__)
    return 1;
#elif defined(__aarch64__) && defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return 0;
#endif
}

/* Run a list. `vectors`: use AVX2 and FMA on x86, 8-bit dot products on ARM, which the processor
   then must have; a list with QUADS needs them. */
void earmark_native_run(const word *at, int vectors)
{
    loop *const *loops = vectors ? loops_vectors : loops_any;
    for (;;) {
        word operation = *at++;
        switch (operation) {
        case END:
            return;
        case PRODUCT:
            (vectors ? product_vectors : product_any)(
                at[0], at[1], at[2], POINTER(const float, 3), at[4], POINTER(const float, 5),
                POINTER(const float, 6), POINTER(float, 7), at[8]);
            at += 9;
            break;
        case CONVOLVE:
        case QUADS:
            (operation == QUADS ? quads : convolve)(
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
            at = run_loop(loops[operation], at);
        }
    }
}
