/* The least that any receiver must do whose Success means that the file lasts: how fast such a one can be here.
 *
 *     floor PORT FOLDER
 *
 *     recv -> headers of PDUs and PDVs taken off -> write -> fdatasync(file) -> fsync(folder) -> rename -> Success
 *
 * No look at the data set, no hash, no row, no audit record, no queue, no check of who sends what; the file is the
 * data set alone. A thread and a buffer an association; whatever is not expected closes the connection. Numbers in
 * PDUs are big endian (PS3.8 9.3), those in commands little endian (PS3.7 9.3.1).
 *
 * With -DPROFILE the end of each association prints the CPU of each step so far, in ms an image, to stderr.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* both as large as Hilum's: node/receive/engine.py, [receive] max_pdu_bytes */
enum { BUFFER_BYTES = 1 << 18, MAX_PDU = 131072 };
enum { A_ASSOCIATE_RQ = 1, A_ASSOCIATE_AC = 2, P_DATA_TF = 4, A_RELEASE_RQ = 5, A_RELEASE_RP = 6 };
enum { COMMAND = 1, LAST = 2 };

typedef struct {
    int socket, file;
    uint8_t *buffer;
    /* what has come and is not yet taken: buffer[at..end) */
    size_t at, end;
    uint8_t command[4096];
    size_t command_length;
    uint8_t message_id[2];
    char temporary[32], final[32];
} Association;

static int folder;
static atomic_ulong numbers;

#ifdef PROFILE
enum { RECV, WRITE, FDATASYNC, FSYNC, RENAME, OPEN, SEND, WHOLE, STEPS };
static const char *const NAMES[] = {"recv", "write", "fdatasync", "fsync", "rename", "open+close", "send", "whole"};
static _Thread_local double spent[STEPS];

static double cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return 1e3 * now.tv_sec + now.tv_nsec / 1e6;
}

static void tell(void) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static double all[STEPS];
    spent[WHOLE] = cpu_ms();
    pthread_mutex_lock(&mutex);
    fprintf(stderr, "%lu images:", numbers);
    for (int step = 0; step < STEPS; step++)
        fprintf(stderr, " %s %.3f", NAMES[step], (all[step] += spent[step]) / (numbers ? numbers : 1));
    fprintf(stderr, "\n");
    pthread_mutex_unlock(&mutex);
}
#define STEP(step, call) ({ double from = cpu_ms(); __auto_type got = (call); spent[step] += cpu_ms() - from; got; })
#else
#define tell()
#define STEP(step, call) (call)
#endif

static uint32_t big16(const uint8_t *at) { return at[0] << 8 | at[1]; }
static uint32_t big32(const uint8_t *at) { return big16(at) << 16 | big16(at + 2); }
static uint32_t little16(const uint8_t *at) { return at[1] << 8 | at[0]; }
static uint32_t little32(const uint8_t *at) { return little16(at + 2) << 16 | little16(at); }

/* At least `wanted` bytes lie at buffer + at; false: there are no more, or they don't fit. */
static bool have(Association *a, size_t wanted) {
    while (a->end - a->at < wanted) {
        a->end -= a->at;
        memmove(a->buffer, a->buffer + a->at, a->end);
        a->at = 0;
        /* does not last: the kernel falls back to delayed acknowledgements by itself */
        STEP(RECV, setsockopt(a->socket, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int)));
        ssize_t count = STEP(RECV, recv(a->socket, a->buffer + a->end, BUFFER_BYTES - a->end, 0));
        if (count <= 0)
            return false;
        a->end += count;
    }
    return true;
}

static bool send_all(int socket, const uint8_t *data, size_t length) {
    for (ssize_t done; length; data += done, length -= done)
        if ((done = STEP(SEND, send(socket, data, length, MSG_NOSIGNAL))) <= 0)
            return false;
    return true;
}

static bool write_all(int file, const uint8_t *data, size_t length) {
    for (ssize_t done; length; data += done, length -= done)
        if ((done = STEP(WRITE, write(file, data, length))) <= 0)
            return false;
    return true;
}

/* A-ASSOCIATE-AC: the request's fixed part, each context with its first transfer syntax, and our maximum length. */
static bool accept_all(int socket, const uint8_t *body, size_t length) {
    static const uint8_t ABOUT_US[] = {
        0x50, 0, 0, 18,
        0x51, 0, 0, 4, MAX_PDU >> 24, MAX_PDU >> 16 & 255, MAX_PDU >> 8 & 255, MAX_PDU & 255,
        0x52, 0, 0, 6, '2', '.', '2', '5', '.', '1',
    };
    uint8_t answer[16384] = {A_ASSOCIATE_AC};
    size_t end = 6 + 68;
    if (length < 68)
        return false;
    memcpy(answer + 6, body, 68);
    for (size_t at = 68, next; at + 4 <= length; at = next) {
        next = at + 4 + big16(body + at + 2);
        if (next > length || end + 8 + (next - at) + sizeof ABOUT_US > sizeof answer)
            return false;
        if (body[at] == 0x10) {
            memcpy(answer + end, body + at, next - at);
            end += next - at;
        } else if (body[at] == 0x20) {
            size_t syntax = at + 8;
            while (syntax + 4 <= next && body[syntax] != 0x40)
                syntax += 4 + big16(body + syntax + 2);
            size_t size = syntax + 4 <= next ? 4 + big16(body + syntax + 2) : 0;
            if (!size || syntax + size > next)
                return false;
            memcpy(answer + end, (uint8_t[]){0x21, 0, (4 + size) >> 8, 4 + size, body[at + 4], 0, 0, 0}, 8);
            memcpy(answer + end + 8, body + syntax, size);
            end += 8 + size;
        }
    }
    memcpy(answer + end, ABOUT_US, sizeof ABOUT_US);
    end += sizeof ABOUT_US;
    answer[4] = (end - 6) >> 8, answer[5] = end - 6;
    return send_all(socket, answer, end);
}

/* The command is whole: if it is a C-STORE-RQ, its file begins. */
static bool begin(Association *a) {
    uint32_t field = 0;
    for (size_t at = 0; at + 10 <= a->command_length; at += 8 + (size_t)little32(a->command + at + 4)) {
        uint32_t element = little16(a->command + at + 2);
        if (element == 0x0100)
            field = little16(a->command + at + 8);
        if (element == 0x0110)
            memcpy(a->message_id, a->command + at + 8, 2);
    }
    a->command_length = 0;
    if (field != 0x0001)
        return false;
    unsigned long number = atomic_fetch_add(&numbers, 1);
    snprintf(a->temporary, sizeof a->temporary, "%08lu.part", number);
    snprintf(a->final, sizeof a->final, "%08lu.dcm", number);
    a->file = STEP(OPEN, open(a->temporary, O_WRONLY | O_CREAT | O_EXCL, 0600));
    return a->file >= 0;
}

/* The data set is whole: it lasts, then C-STORE-RSP with Success. The order is Hilum's (storage/spool.py). */
static bool keep(Association *a, uint8_t context) {
    const uint8_t *id = a->message_id;
    uint8_t answer[] = {
        P_DATA_TF, 0, 0, 0, 0, 58, 0, 0, 0, 54, context, COMMAND | LAST,
        0, 0, 0x00, 0x00, 4, 0, 0, 0, 40, 0, 0, 0,
        0, 0, 0x00, 0x01, 2, 0, 0, 0, 0x01, 0x80,
        0, 0, 0x20, 0x01, 2, 0, 0, 0, id[0], id[1],
        0, 0, 0x00, 0x08, 2, 0, 0, 0, 0x01, 0x01,
        0, 0, 0x00, 0x09, 2, 0, 0, 0, 0x00, 0x00,
    };
    if (STEP(FDATASYNC, fdatasync(a->file)) || STEP(FSYNC, fsync(folder)) ||
        STEP(RENAME, rename(a->temporary, a->final)))
        return false;
    STEP(OPEN, close(a->file));
    a->file = -1;
    return send_all(a->socket, answer, sizeof answer);
}

/* The fragments of one P-DATA-TF, each as it comes. */
static bool take_data(Association *a, size_t pdu_left) {
    while (pdu_left) {
        if (pdu_left < 6 || !have(a, 6))
            return false;
        const uint8_t *header = a->buffer + a->at;
        size_t left = big32(header), some;
        uint8_t context = header[4], control = header[5];
        if (left < 2 || left + 4 > pdu_left)
            return false;
        a->at += 6, pdu_left -= left + 4;
        for (left -= 2; left; a->at += some, left -= some) {
            if (!have(a, 1))
                return false;
            some = left < a->end - a->at ? left : a->end - a->at;
            if (control & COMMAND) {
                if (a->file >= 0 || a->command_length + some > sizeof a->command)
                    return false;
                memcpy(a->command + a->command_length, a->buffer + a->at, some);
                a->command_length += some;
            } else if (a->file < 0 || !write_all(a->file, a->buffer + a->at, some)) {
                return false;
            }
        }
        if (control & LAST && !(control & COMMAND ? begin(a) : a->file >= 0 && keep(a, context)))
            return false;
    }
    return true;
}

/* One PDU; false: the association is over. */
static bool take(Association *a) {
    if (!have(a, 6))
        return false;
    uint8_t kind = a->buffer[a->at];
    size_t length = big32(a->buffer + a->at + 2);
    a->at += 6;
    if (kind == P_DATA_TF)
        return take_data(a, length);
    if (length > BUFFER_BYTES || !have(a, length))
        return false;
    const uint8_t *body = a->buffer + a->at;
    a->at += length;
    if (kind == A_ASSOCIATE_RQ)
        return accept_all(a->socket, body, length);
    return kind == A_RELEASE_RQ && send_all(a->socket, (uint8_t[]){A_RELEASE_RP, 0, 0, 0, 0, 4, 0, 0, 0, 0}, 10);
}

static void *serve(void *socket) {
    Association a = {.socket = (intptr_t)socket, .file = -1, .buffer = malloc(BUFFER_BYTES)};
    setsockopt(a.socket, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    while (a.buffer && take(&a))
        ;
    if (a.file >= 0) {
        close(a.file);
        unlink(a.temporary);
    }
    close(a.socket);
    free(a.buffer);
    tell();
    return NULL;
}

int main(int count, char **words) {
    if (count != 3 || chdir(words[2]) || (folder = open(".", O_RDONLY | O_DIRECTORY)) < 0)
        return fprintf(stderr, "floor PORT FOLDER\n"), 2;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1])),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listening, (struct sockaddr *)&here, sizeof here) || listen(listening, 1024))
        return perror("floor"), 3;
    for (;;) {
        int peer = accept(listening, NULL, NULL);
        pthread_t thread;
        if (peer >= 0 && !pthread_create(&thread, NULL, serve, (void *)(intptr_t)peer))
            pthread_detach(thread);
        else if (peer >= 0)
            close(peer);
    }
}
