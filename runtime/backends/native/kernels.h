/* All that computes with many numbers. native.c includes this file once for each kind of
   processor, with NAME and TARGET set for it.

   Every output is summed up in the order of its inputs by itself, so that it does not depend on how
   many rows or columns stand beside it. */

/* Vectors of LANES numbers; a row of a panel, PANEL outputs for one input, is some of them. */
#define VECTORS (PANEL / LANES)
typedef float NAME(floats) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

TARGET static inline __attribute__((always_inline)) void
NAME(product_block)(const int rows, word inner, const float *left, word step, const float *right,
                    const float *bias, float *out, word out_step, word width)
{
    NAME(floats) sums[ROWS][VECTORS] = {0};
    for (word place = 0; place < inner; place++, right += PANEL)
        for (int row = 0; row < rows; row++) {
            float one = left[row * step + place];
            for (int part = 0; part < VECTORS; part++)
                sums[row][part] += one * *(const NAME(floats) *)(right + part * LANES);
        }
    for (int row = 0; row < rows; row++, out += out_step) {
        float spare[PANEL], *target = width < PANEL ? spare : out;
        for (int part = 0; part < VECTORS; part++)
            *(NAME(floats) *)(target + part * LANES) =
                sums[row][part] + *(const NAME(floats) *)(bias + part * LANES);
        if (width < PANEL)
            memcpy(out, spare, width * sizeof *out);
    }
}

/* out[rows, columns] = left[rows, inner] right[inner, columns] + bias, the right side and the bias
   in panels. */
TARGET static void NAME(product)(word rows, word columns, word inner, const float *left, word step,
                                 const float *right, const float *bias, float *out, word out_step)
{
    for (word column = 0; column < columns; column += PANEL) {
        word width = columns - column < PANEL ? columns - column : PANEL, row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            NAME(product_block)(ROWS, inner, left + row * step, step, right, bias + column,
                                out + row * out_step + column, out_step, width);
        for (; row + 2 <= rows; row += 2)
            NAME(product_block)(2, inner, left + row * step, step, right, bias + column,
                                out + row * out_step + column, out_step, width);
        if (row < rows)
            NAME(product_block)(1, inner, left + row * step, step, right, bias + column,
                                out + row * out_step + column, out_step, width);
        right += inner * PANEL;
    }
}

/* Sums as codes: in steps of a code, rounded half to even. */
TARGET static inline __attribute__((always_inline)) void
NAME(store_codes)(const int32_t *sums, const int32_t *bias, const float *scale, struct codes codes,
                  uint8_t *out, word width)
{
    uint8_t spare[PANEL];
    for (int lane = 0; lane < PANEL; lane++) {
        float step = (float)(int32_t)((uint32_t)sums[lane] + (uint32_t)bias[lane]) * scale[lane];
        step = step > codes.least ? step : codes.least;
        step = step < codes.most ? step : codes.most;
        spare[lane] = (uint8_t)(int32_t)((step + ROUND - ROUND) + codes.zero);
    }
    if (width < PANEL)
        memcpy(out, spare, width);
    else
        memcpy(out, spare, PANEL);
}
#undef VECTORS

LOOP(codes_to_floats, float, uint8_t, uint8_t, x)
LOOP(floats_to_codes, uint8_t, float, float, to_code(x))
LOOP(add, float, float, float, x + y)
LOOP(subtract, float, float, float, x - y)
LOOP(multiply, float, float, float, x *y)
LOOP(divide, float, float, float, x / y)
LOOP(least, float, float, float, x < y || x != x ? x : y)
LOOP(most, float, float, float, x > y || x != x ? x : y)
LOOP(logarithm, float, float, float, logf(x))

TARGET static void NAME(copy_codes)(word n, char *out, word so, const char *a, word sa,
                                    const char *b, word sb)
{
    (void)b, (void)sb;
    if (so == 1 && sa == 1)
        memcpy(out, a, n);
    else
        for (; n--; out += so, a += sa)
            *out = *a;
}

TARGET static void NAME(copy_floats)(word n, char *out, word so, const char *a, word sa,
                                     const char *b, word sb)
{
    (void)b, (void)sb;
    if (so == 4 && sa == 4)
        memcpy(out, a, 4 * n);
    else
        for (; n--; out += so, a += sa)
            *(float *)out = *(const float *)a;
}

/* `b` is scale, least, most and zero. */
TARGET static void NAME(encode)(word n, char *out, word so, const char *a, word sa, const char *b,
                                word sb)
{
    const float *limits = (const float *)b, scale = limits[0], zero = limits[3];
    (void)sb;
    for (; n--; out += so, a += sa) {
        float step = *(const float *)a / scale;
        step = step > limits[1] ? step : limits[1];
        step = step < limits[2] ? step : limits[2];
        *(uint8_t *)out = (uint8_t)(int32_t)((step + ROUND - ROUND) + zero);
    }
}

/* `b` has the value of each code. */
TARGET static void NAME(decode)(word n, char *out, word so, const char *a, word sa, const char *b,
                                word sb)
{
    const float *values = (const float *)b;
    (void)sb;
    for (; n--; out += so, a += sa)
        *(float *)out = values[*(const uint8_t *)a];
}

static loop *const NAME(loops)[] = {
    [COPY_FLOATS] = NAME(copy_floats),
    [COPY_CODES] = NAME(copy_codes),
    [CODES_TO_FLOATS] = NAME(codes_to_floats),
    [FLOATS_TO_CODES] = NAME(floats_to_codes),
    [ADD] = NAME(add),
    [SUBTRACT] = NAME(subtract),
    [MULTIPLY] = NAME(multiply),
    [DIVIDE] = NAME(divide),
    [LEAST] = NAME(least),
    [MOST] = NAME(most),
    [LOGARITHM] = NAME(logarithm),
    [ENCODE] = NAME(encode),
    [DECODE] = NAME(decode),
};
