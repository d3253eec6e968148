/* Reads a problem (n, d, k, bits; rows, scales, biases, query), packs and scans it, and writes the k best rows
   and scores. The order of `table` and `scratch` is that of sanderling/kernels/layout.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int64_t sanderling_pack(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
int64_t sanderling_scan(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

static int64_t room(size_t bytes) { return (int64_t)aligned_alloc(64, (bytes + 127) / 64 * 64); }

int main(int count, char **arguments) {
    FILE *file = fopen(arguments[count - 1], "rb");
    int64_t sizes[4];
    fread(sizes, 8, 4, file);
    int64_t n = sizes[0], d = sizes[1], k = sizes[2], bits = sizes[3], groups = (d + 7) / 8, blocks = (n + 63) / 64;
    int64_t rows = room(n * d), scale = room(4 * n), bias = room(4 * n), query = room(4 * d);
    fread((void *)rows, 1, n * d, file);
    fread((void *)scale, 4, n, file);
    fread((void *)bias, 4, n, file);
    fread((void *)query, 4, d, file);
    int64_t planes = room(blocks * (groups * (bits == 4 ? 256 : 512) + 320));
    int64_t table[9] = {planes, blocks, groups, rows, n, d, scale, bias, bits};
    sanderling_pack((int64_t)table, 0, 0, 0, 0, 0);
    int64_t scratch[11] = {room(8 * k),    room(8 * k),      room(8 * 4096), room(4 * 4096), room(4 * (d + 16)),
                           room(8 * groups), room(8 * blocks), room(4 * 8192), (int64_t)calloc(8, 8), room(8 * 8192), 0};
    int64_t count_best = sanderling_scan((int64_t)table, query, 0, 0, k, (int64_t)scratch);
    for (int64_t at = 0; at < count_best; at++) {
        fwrite((int64_t *)scratch[0] + at, 8, 1, stdout);
        fwrite((double *)scratch[1] + at, 8, 1, stdout);
    }
    return 0;
}
