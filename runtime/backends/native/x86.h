/* What native.c takes from this file on x86: products of matrices by AVX2, with VNNI and without.

   AVX2 adds products of two inputs, and of a pair of quads those of four, in 16 bits: who wrote the
   list has seen that they hold them. `pairs` takes quads in another order, which is
   [columns / PANEL][1 + inner / 4]: the number of pairs of quads that come first, then the first
   input of each pair and after them of each quad that is left. */

#include <cpuid.h>
#include <immintrin.h>

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static inline int32_t four_codes(const uint8_t *codes)
{
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return four;
}

static inline void store_panel(__m128i codes, uint8_t *out, word width)
{
    uint8_t spare[PANEL];
    _mm_storeu_si128((__m128i *)(width < PANEL ? spare : out), codes);
    if (width < PANEL)
        memcpy(out, spare, width);
}

#define TARGET __attribute__((target("avx2,fma")))
#define NAME(name) name##_avx2
#define LANES 8
#define ROWS 4
#include "kernels.h"
#undef NAME
#undef LANES

/* The sums of two products and two more for each of eight outputs. */
TARGET static inline __attribute__((always_inline)) __m256i by_two(const uint8_t *inputs,
                                                                   const int8_t *weights)
{
    return _mm256_maddubs_epi16(_mm256_set1_epi32(four_codes(inputs)),
                                _mm256_loadu_si256((const __m256i *)weights));
}

/* As store_codes: half to even is how the processor rounds. */
TARGET static inline __attribute__((always_inline)) void
store_halves(__m256i sums[2], const int32_t *bias, const float *scale, struct codes codes,
             uint8_t *out, word width)
{
    __m256 least = _mm256_set1_ps(codes.least), most = _mm256_set1_ps(codes.most);
    __m256i zero = _mm256_set1_epi32((int32_t)codes.zero);
    for (int half = 0; half < 2; half++) {
        __m256i whole =
            _mm256_add_epi32(sums[half], _mm256_loadu_si256((const __m256i *)bias + half));
        __m256 steps = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_loadu_ps(scale + 8 * half));
        steps = _mm256_min_ps(_mm256_max_ps(steps, least), most);
        sums[half] = _mm256_add_epi32(_mm256_cvtps_epi32(steps), zero);
    }
    /* Packing takes each half of 128 bits by itself. */
    __m256i packed = _mm256_packs_epi32(sums[0], sums[1]);
    packed = _mm256_permute4x64_epi64(packed, 0xd8);
    __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
    store_panel(bytes, out, width);
}

TARGET static inline __attribute__((always_inline)) void
pairs_block(const int rows, word inner, const uint8_t *left, word step, const int8_t *right,
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
    for (int row = 0; row < rows; row++)
        store_halves(sums[row], bias, scale, codes, out + row * out_step, width);
}

LAYER(pairs, 4, 1 + (inner + 3) / 4)

#undef TARGET
#undef ROWS

/* VNNI multiplies and adds a quad by one instruction: as part of AVX, and of AVX-512. Compilers
   before these do not know it. GCC 11 does, and is found beside an assembler that knows the latter
   alone (binutils 2.35). */
#if defined(__apple_build_version__)
#define KNOWS(gcc, clang, apple) (__clang_major__ >= apple)
#elif defined(__clang__)
#define KNOWS(gcc, clang, apple) (__clang_major__ >= clang)
#else
#define KNOWS(gcc, clang, apple) (__GNUC__ >= gcc)
#endif

#define ROWS 4
#if KNOWS(12, 12, 13)
#define AVX_VNNI
static int has_avx_vnni(void)
{
    unsigned eax, ebx, ecx, edx;
    /* There is no builtin for it in all of these compilers. */
    return has_avx2() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && eax >= 1 &&
           __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

#define TARGET __attribute__((target("avx2,fma,avxvnni")))
TARGET static inline __attribute__((always_inline)) void
quads_block(const int rows, word inner, const uint8_t *left, word step, const int8_t *right,
            const int32_t *order, const int32_t *bias, const float *scale, struct codes codes,
            uint8_t *out, word out_step, word width)
{
    (void)order;
    __m256i sums[ROWS][2];
    for (int row = 0; row < rows; row++)
        sums[row][0] = sums[row][1] = _mm256_setzero_si256();
    for (word place = 0; place < inner; place += 4, right += 4 * PANEL)
        for (int row = 0; row < rows; row++) {
            __m256i inputs = _mm256_set1_epi32(four_codes(left + row * step + place));
            for (int half = 0; half < 2; half++)
                sums[row][half] = _mm256_dpbusd_avx_epi32(
                    sums[row][half], inputs, _mm256_loadu_si256((const __m256i *)right + half));
        }
    for (int row = 0; row < rows; row++)
        store_halves(sums[row], bias, scale, codes, out + row * out_step, width);
}

LAYER(quads, 4, 0)
#undef TARGET
#endif

#if KNOWS(11, 12, 13)
#define AVX512_VNNI
static int has_avx512_vnni(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define NAME(name) name##_wide
#define LANES 16
#include "kernels.h"
#undef NAME
#undef LANES

/* A quad's products, added to the sums of a panel. */
TARGET static inline __attribute__((always_inline)) __m512i
by_quad(__m512i sums, const uint8_t *inputs, const int8_t *weights)
{
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(four_codes(inputs)),
                               _mm512_loadu_si512(weights));
}

TARGET static inline __attribute__((always_inline)) void
quads_wide_block(const int rows, word inner, const uint8_t *left, word step, const int8_t *right,
                 const int32_t *order, const int32_t *bias, const float *scale, struct codes codes,
                 uint8_t *out, word out_step, word width)
{
    (void)order;
    /* Two sums for each output, so that fewer additions wait for the one before. */
    __m512i sums[ROWS], others[ROWS];
    for (int row = 0; row < rows; row++)
        sums[row] = others[row] = _mm512_setzero_si512();
    word place = 0;
    for (; place + 4 < inner; place += 8, right += 8 * PANEL)
        for (int row = 0; row < rows; row++) {
            const uint8_t *inputs = left + row * step + place;
            sums[row] = by_quad(sums[row], inputs, right);
            others[row] = by_quad(others[row], inputs + 4, right + 4 * PANEL);
        }
    if (place < inner)
        for (int row = 0; row < rows; row++)
            sums[row] = by_quad(sums[row], left + row * step + place, right);
    __m512 least = _mm512_set1_ps(codes.least), most = _mm512_set1_ps(codes.most);
    __m512i zero = _mm512_set1_epi32((int32_t)codes.zero);
    for (int row = 0; row < rows; row++) {
        /* As store_codes. */
        __m512i whole = _mm512_add_epi32(sums[row], others[row]);
        whole = _mm512_add_epi32(whole, _mm512_loadu_si512(bias));
        __m512 steps = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_loadu_ps(scale));
        steps = _mm512_min_ps(_mm512_max_ps(steps, least), most);
        whole = _mm512_add_epi32(_mm512_cvtps_epi32(steps), zero);
        store_panel(_mm512_cvtepi32_epi8(whole), out + row * out_step, width);
    }
}

LAYER(quads_wide, 4, 0)
#undef TARGET
#endif
#undef ROWS
