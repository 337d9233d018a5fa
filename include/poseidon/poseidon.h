/* Poseidon for programs in C, and for languages that call C: join a job, submit gradients, get their sums over all workers.
 *
 * The same library as poseidon/cluster.h and poseidon/local.h, and the same rules; docs/library.md is the guide to both.
 *
 * Errors. Functions return POSEIDON_OK or another poseidon_code. poseidon_last_error() then has one sentence, of the calling
 * thread. No exception and no signal leaves a function. A null handle or a null pointer that must not be null is
 * POSEIDON_INVALID, as every mistake of the caller's that can be seen.
 *
 * Structs begin with `size`: set it to sizeof the struct (POSEIDON_INIT does, and zeroes the rest). Later versions append
 * members, whose zero means what was before; so a program runs with a newer library without being compiled again, and with an
 * older one as long as what that one does not know is zero. In an array of structs each has its size set, all the same.
 *
 * Ownership. What a function takes is borrowed until it returns, unless its comment says longer. What it gives belongs to the
 * handle it comes from, unless its comment says otherwise.
 *
 * Threads. As in poseidon/cluster.h: one thread calls begin, renew, gather, leave, fail and close; all others may be called by any
 * thread. Callbacks run on the library's threads: they must return soon, must not wait, and must not call poseidon_close.
 */
#ifndef POSEIDON_POSEIDON_H_
#define POSEIDON_POSEIDON_H_

#include <stddef.h>
#include <stdint.h>

#include "poseidon/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grows by one with every function or member that is appended. Compare with poseidon_abi_version() of the library that is
 * there at run time. */
#define POSEIDON_ABI_VERSION 3

/* poseidon_synced synced = POSEIDON_INIT(poseidon_synced); */
#ifdef __cplusplus
#define POSEIDON_INIT(type) ([] { type value{}; value.size = sizeof(type); return value; }())
#else
#define POSEIDON_INIT(type) {.size = sizeof(type)}
#endif

/* What can be done about an error; the numbers never change. */
typedef enum poseidon_code {
  POSEIDON_OK = 0,
  POSEIDON_INVALID = 1,       /* an argument, file or option cannot be used as it is */
  POSEIDON_NOT_FOUND = 2,     /* what was named does not exist; poseidon_join: no launcher has started this process */
  POSEIDON_CORRUPT_FRAME = 3, /* bytes from a peer are not what the protocol allows */
  POSEIDON_STALE_EPOCH = 4,   /* a frame from before a recovery */
  POSEIDON_PEER_LOST = 5,     /* a member of the job died or fell silent */
  POSEIDON_REFUSED = 6,       /* the other side turned us away: wrong secret, other parameters, rank taken */
  POSEIDON_TIMEOUT = 7,       /* a bounded wait ran out; the message says whom it waited for */
  POSEIDON_ABORTED = 8,       /* the job ends because of somebody else's error, which the message repeats */
  POSEIDON_SYSTEM = 9         /* the operating system said no: disk full, port in use, out of memory */
} poseidon_code;

/* Element types. */
#define POSEIDON_FLOAT32 0
#define POSEIDON_FLOAT64 1
#define POSEIDON_BFLOAT16 2 /* on the wire only */
#define POSEIDON_FLOAT16 3  /* likewise */

/* Schemes: how a layer travels. */
#define POSEIDON_PS 0    /* dense gradients to the servers that own their chunks, sums back */
#define POSEIDON_SFB 1   /* sufficient factors to every peer, which multiplies them itself */
#define POSEIDON_ADAM 2  /* sufficient factors to one owner, the full matrix back */
#define POSEIDON_BLOCK 3 /* a grid of blocks, each with an owner that gets the factors it needs */

/* Of the library that is there at run time. */
POSEIDON_API uint32_t poseidon_abi_version(void);
/* "0.1.0"; never freed. */
POSEIDON_API const char* poseidon_version(void);
/* The sentence of the last call of this thread that did not return POSEIDON_OK; "" before there was one. Valid until the next
 * such call of this thread. */
POSEIDON_API const char* poseidon_last_error(void);
/* "peer_lost"; "unknown" for a number that is no code. Never freed. */
POSEIDON_API const char* poseidon_code_name(int code);
/* "sfb"; "unknown" for a number that is no scheme. Never freed. */
POSEIDON_API const char* poseidon_scheme_name(int scheme);

/* ---- A worker: in and out ---- */

typedef struct poseidon_place {
  size_t size;
  int32_t in_job;  /* 1: a launcher has started this process; 0: none has, and the rest means nothing */
  int32_t rank;    /* 0 to workers - 1 */
  int32_t workers; /* P */
  int32_t reserved;
} poseidon_place;

/* Reads the environment (POSEIDON_RANK, ...). POSEIDON_INVALID, naming the variable, when it is broken. */
POSEIDON_API int poseidon_find_job(poseidon_place* place);

/* One trained array, and where its values lie. */
typedef struct poseidon_tensor {
  size_t size;
  const char* name;     /* UTF-8, of this tensor alone */
  const int64_t* shape; /* `dimensions` extents, each at least 1 */
  size_t dimensions;    /* at most 16; 0: one number */
  int32_t dtype;        /* POSEIDON_FLOAT32 or POSEIDON_FLOAT64 */
  int32_t reserved;
  void* values;         /* contiguous, row by row; rank 0's are written into all others' by poseidon_join and poseidon_renew */
} poseidon_tensor;

/* A layer with trained arrays. Layers are listed in the order of the forward pass: the first is sent first. */
typedef struct poseidon_layer {
  size_t size;
  const char* name;
  const uint32_t* tensors; /* indices of its tensors; for a layer with factors the weight, then the bias if it has one */
  size_t tensor_count;
  /* The gradient of the weight [outputs, inputs] is U'V of at most so many rows from a worker in an iteration. 0: it has no such
   * form, and the layer travels densely. */
  size_t factor_rows;
} poseidon_layer;

/* A product of factors that is wanted: out = U'V. Row by row; nothing is owned. */
typedef struct poseidon_product {
  size_t size;
  size_t rows;       /* of U and V, from all workers together */
  size_t outputs;    /* columns of U, rows of `out` */
  size_t inputs;     /* columns of V and of `out` */
  const void* u;     /* [rows, outputs] */
  const void* v;     /* [rows, inputs] */
  void* out;         /* [outputs, inputs]; what was there is overwritten */
  size_t out_stride; /* elements from one row of `out` to the next */
  int32_t dtype;
  int32_t reserved;
} poseidon_product;
/* 0: done. Anything else ends the job. Called by the library's thread for products, one at a time. The same numbers must give
 * the same bits on all workers. Both element types are asked for: when joining, a float32 product is compared between workers. */
typedef int (*poseidon_product_fn)(void* user, const poseidon_product* product);

typedef struct poseidon_join_options {
  size_t size;
  const poseidon_tensor* tensors;
  size_t tensor_count;
  const poseidon_layer* layers;
  size_t layer_count;
  poseidon_product_fn product; /* null: plain loops, right but slow; an engine brings its fast product here */
  void* product_user;          /* handed to `product`; borrowed until poseidon_close */
  /* Since version 3. Not 0: the model is trained only until poseidon_renew brings a better one. All layers travel as dense gradients
   * until then, and nothing is measured. Equal on all workers. */
  int32_t provisional;
  int32_t reserved;
} poseidon_join_options;

typedef struct poseidon_cluster poseidon_cluster;

/* Joins the job of the environment and waits for all workers. On success *cluster is to be given to poseidon_close; else it is
 * null. An error is told to the launcher as well. All of `options` is borrowed until the call returns. */
POSEIDON_API int poseidon_join(const poseidon_join_options* options, poseidon_cluster** cluster);
/* Closes the links and frees the handle and all that came from it; null is ignored. Without poseidon_leave before, the others
 * take it for a death. Sums that have not come are called back with POSEIDON_ABORTED before it returns; memory that was handed
 * in is used by nobody any more once it has. */
POSEIDON_API void poseidon_close(poseidon_cluster* cluster);
/* Since version 3. In the place of poseidon_close, in a process that has been forked from the worker's: closes its copies of the links,
 * which would look alive to the others as long as this process lives, and lets go of all else without a word. Nobody is called back,
 * and memory stays as it is. The worker's own process notices nothing. Null is ignored. */
POSEIDON_API void poseidon_forsake(poseidon_cluster* cluster);

/* -1 for null. */
POSEIDON_API int32_t poseidon_rank(const poseidon_cluster* cluster);
/* How many workers there are; -1 for null. */
POSEIDON_API int32_t poseidon_workers(const poseidon_cluster* cluster);
/* The scheme of a layer under the plan in force: POSEIDON_PS means poseidon_submit for each of its tensors, any other
 * poseidon_submit_factors. With one worker all layers are POSEIDON_PS. */
POSEIDON_API int poseidon_scheme_of(const poseidon_cluster* cluster, uint32_t layer, int32_t* scheme);
/* The plan in force, as JSON; valid until poseidon_close, but after poseidon_renew another one is in force. Null for null. */
POSEIDON_API const char* poseidon_plan(poseidon_cluster* cluster);

/* May this iteration begin? *go is 1, or 0 when all workers stop before this same iteration because somebody has asked for the
 * end: go on to poseidon_leave. */
POSEIDON_API int poseidon_begin(poseidon_cluster* cluster, uint64_t iteration, int32_t* go);
/* Since version 3. Trains another model from iteration `first` on, as all workers do before that iteration begins: its tensors are those of
 * the present one, in their places, and perhaps more behind them; its layers may be other ones, and so may schemes be.
 *
 * A tensor's `values`: rank 0's are written into all others' before this returns. Null: they do not travel, and everybody keeps its own;
 * the same tensors on all workers. `product`, `product_user` and `provisional` are not looked at: the product stays, and what is renewed
 * is not provisional any more (it may be renewed again). All of `options` is borrowed until the call returns.
 *
 * All sums must have been called back, or taken by poseidon_wait, and no other thread may submit meanwhile. Afterwards each tensor's
 * iterations begin anew, with `first` or any later one. Waits for all workers. POSEIDON_INVALID, with nothing sent and all as before:
 * the model cannot be, is no continuation of the present one, or a sum is outstanding; the others wait then, so go on to
 * poseidon_fail. Any other code, also where the workers differ in model or values: what has ended the job. */
POSEIDON_API int poseidon_renew(poseidon_cluster* cluster, const poseidon_join_options* options, uint64_t first);
/* This worker has done its work and has no sum outstanding. Waits until all say so. */
POSEIDON_API int poseidon_leave(poseidon_cluster* cluster);
/* This worker cannot go on: ends the job for all with this code and sentence. */
POSEIDON_API int poseidon_fail(poseidon_cluster* cluster, int code, const char* message);
/* What has ended the job, with the sentence in poseidon_last_error(); POSEIDON_OK while it goes on. */
POSEIDON_API int poseidon_error(const poseidon_cluster* cluster);
/* For a worker that cannot even join: leaves the reason for the launcher, whose job fails with it when this process ends. */
POSEIDON_API int poseidon_report_failure(int code, const char* message);

/* ---- Gradients out, sums in ---- */

/* The end of one submission. */
typedef struct poseidon_synced {
  size_t size;
  int32_t code;          /* not POSEIDON_OK: there is no sum, and the memory's contents are undefined */
  uint32_t contributors; /* workers in the sum; 0 when none had a gradient, and then the memory is untouched */
  uint64_t iteration;
  uint64_t samples;      /* of all contributors, as they were declared */
  const char* message;   /* of an error, else ""; valid during the callback, after poseidon_wait as poseidon_last_error is */
} poseidon_synced;
/* Runs once for each submission that returned POSEIDON_OK, on the library's lane. */
typedef void (*poseidon_synced_fn)(void* user, const poseidon_synced* synced);

/* Each tensor (each layer with factors) takes one submission in an iteration, in order of iterations, and the next only after
 * the sum of the last has been called back, or taken by poseidon_wait. All workers submit the same iterations. The functions
 * do not wait. A submission that cannot be is POSEIDON_INVALID at once, and nothing is sent.
 *
 * Tensors count for themselves: one may be at iteration 5 while another is at 2, and workers may take different tensors in
 * different orders, with little memory for staging too. What a submission waits for (sums from which its gradient is computed) must be
 * the same on all workers, and must not go round in a circle.
 *
 * With `on_synced` null the sum is to be taken by poseidon_wait. After the job has ended with an error, memory that was handed
 * in must stay until poseidon_close. */

typedef struct poseidon_gradient {
  size_t size;
  void* gradient; /* of the tensor's shape and type, contiguous; the sum replaces it. Borrowed until the sum has come */
  uint32_t samples; /* that this worker's gradient is made of */
  uint32_t reserved;
} poseidon_gradient;
/* Hands in this worker's gradient of a tensor that travels densely, and returns at once. `on_synced` is called when the sum has taken
 * its place; null where poseidon_wait is used instead. */
POSEIDON_API int poseidon_submit(poseidon_cluster* cluster, uint32_t tensor, uint64_t iteration, const poseidon_gradient* gradient,
                                 poseidon_synced_fn on_synced, void* user);
/* This worker has no gradient of the tensor in this iteration; the others' sum, if any, arrives in `destination`. */
POSEIDON_API int poseidon_submit_absent(poseidon_cluster* cluster, uint32_t tensor, uint64_t iteration, void* destination,
                                        poseidon_synced_fn on_synced, void* user);

typedef struct poseidon_factors {
  size_t size;
  const void* outputs; /* U [rows, outputs]: errors at the layer's output */
  const void* inputs;  /* V [rows, inputs]: the layer's input */
  size_t rows;         /* from 0 to factor_rows */
  void* weight;        /* [outputs, inputs]: the sum arrives here; borrowed until it has come */
  void* bias;          /* [outputs], or null where the layer has none: the column sum of all U arrives here; likewise */
  uint32_t samples;
  uint32_t reserved;
  /* Called on the lane, once for each submission that returned POSEIDON_OK, when U and V are no longer needed: possibly after
   * the sum has come, since they may still be on their way to others. Null: poseidon_wait waits for that too, so that U and V may
   * be used again after it; with `on_synced`, this must not be null. */
  void (*released)(void* user);
  void* released_user;
} poseidon_factors;
/* The same for a layer that travels as factors: not of scheme POSEIDON_PS. Named by its layer here, by its weight in
 * poseidon_wait. */
POSEIDON_API int poseidon_submit_factors(poseidon_cluster* cluster, uint32_t layer, uint64_t iteration, const poseidon_factors* factors,
                                         poseidon_synced_fn on_synced, void* user);

/* Waits for the sum of a tensor that was submitted without a callback; for a layer with factors, name its weight. Returns the
 * code of the sum. `synced` may be null. POSEIDON_INVALID at once when nothing was submitted that way. One thread waits for one
 * tensor. */
POSEIDON_API int poseidon_wait(poseidon_cluster* cluster, uint32_t tensor, poseidon_synced* synced);

/* Memory that the engine can move without copying, aligned to 64 bytes; freed by poseidon_free, or with the cluster. */
POSEIDON_API int poseidon_allocate(poseidon_cluster* cluster, size_t bytes, void** memory);
/* Gives back what poseidon_allocate gave; null is ignored. */
POSEIDON_API int poseidon_free(poseidon_cluster* cluster, void* memory);

/* ---- Small things ---- */

typedef struct poseidon_part {
  size_t size;
  const void* data;
  size_t bytes;
} poseidon_part;
/* Gives every worker what all have given: `parts` has room for one part of each worker, by rank, each with its size set. What
 * they point to is valid until the next poseidon_gather, or poseidon_close. All workers call it in the same order. */
POSEIDON_API int poseidon_gather(poseidon_cluster* cluster, const void* own, size_t bytes, poseidon_part* parts, size_t part_count);
/* A line of UTF-8 text for the launcher's on_note. */
POSEIDON_API int poseidon_note(poseidon_cluster* cluster, const char* text);

/* Bytes over all links to other workers since joining, with framing. */
typedef struct poseidon_traffic {
  size_t size;
  uint64_t bytes_sent;
  uint64_t bytes_received;
} poseidon_traffic;
/* Waits for the lane. */
POSEIDON_API int poseidon_get_traffic(poseidon_cluster* cluster, poseidon_traffic* traffic);
/* Payload of one tensor; the factors of a layer count for its weight. */
POSEIDON_API int poseidon_get_tensor_traffic(poseidon_cluster* cluster, uint32_t tensor, poseidon_traffic* traffic);

/* A message to, or from, another worker. Since version 3. */
typedef struct poseidon_letter {
  size_t size;
  int32_t rank;   /* the other's */
  int32_t reserved;
  void* memory;   /* on the host; only read where it is sent; may be null where `bytes` is 0 */
  size_t bytes;   /* the same at both ends */
} poseidon_letter;
/* Since version 3. Messages to other workers, and from others, at once, of any size. All letters of a call have one name, its channel and
 * number, and both ends of each use the same; a name is used once between two workers in one direction. Returns when each letter is out
 * of, or in, its memory, also where it ends with an error because the job has ended. Any thread, several at once, but no callback.
 * POSEIDON_INVALID, and nothing was sent: a rank that is not there, or this one, no memory, a name that is on its way already.
 * Also POSEIDON_INVALID: the other end's letter has another size; the other end goes on waiting then, so go on to poseidon_fail. */
POSEIDON_API int poseidon_exchange(poseidon_cluster* cluster, uint32_t channel, uint64_t number, const poseidon_letter* out, size_t out_count,
                                   const poseidon_letter* in, size_t in_count);

/* Since version 3. A stretch of the calling thread begins (is_begin not 0), or ends, for the timeline of the job, where it is wanted
 * (POSEIDON_TIMELINE, which `poseidon run --timeline` sets); else it does nothing. Those of one thread lie within each other. Of a name,
 * UTF-8, the first 64 bytes are kept. The engine's own events and poseidon_wait are recorded without a word; the part of
 * this worker goes to the launcher with poseidon_leave, in notes {"timeline": "..."}. */
POSEIDON_API int poseidon_span(poseidon_cluster* cluster, const char* name, int32_t is_begin);

/* ---- A job on this host, started by the program itself ---- */

typedef struct poseidon_local_options {
  size_t size;
  int32_t workers; /* from 1 to 1,024 */
  int32_t reserved;
  const char* const* command; /* a path and its arguments, ended by null; null: this program with its own arguments */
  const char* run_folder;     /* existing, for worker-N.log; null: a new one, removed when all went well */
  const char* schemes;        /* "auto,ip1=sfb"; null: "auto" */
  const char* plan;           /* JSON of a plan to repeat, instead of choosing; may be null */
  double link_bytes_per_second; /* for the choice; 0: measured */
  /* Called by a thread of the library, one at a time, while the job runs; each may be null. */
  void (*on_note)(void* user, int32_t rank, const char* text);
  void (*on_plan)(void* user, const char* plan, const char* table);
  void (*on_wait)(void* user, const char* text);
  void* user;
  /* Since version 2; zero and null are what was before. */
  const char* per_host;  /* "on", or how many at most: workers that combine their gradients in shared memory first; null: "off" */
  uint64_t staging_bytes_max; /* of each worker, for gradients that wait for the others'; 0: 1 GB */
  int32_t lanes;         /* event loops of each worker, 1 to 16; 0: 1 */
  int32_t tls;           /* not 0: all links of the job are TLS 1.3, keyed by its secret */
  int32_t wire;          /* POSEIDON_BFLOAT16 or POSEIDON_FLOAT16: float32 gradients travel with 16 bits; 0: as they are */
  int32_t reserved2;
} poseidon_local_options;

typedef struct poseidon_local_end {
  size_t size;
  int32_t interrupted;    /* the signal that asked for the end; 0: none did */
  int32_t reserved;
  const char* run_folder; /* of the logs; "" where it was removed. Valid until this thread's next poseidon_run_local */
} poseidon_local_end;

/* Runs the job and returns when no process of it is left. `end` may be null. Call it from the main thread before other threads
 * are started; poseidon/local.h says what it does to signals. Ask poseidon_find_job first: in a worker it is refused. */
POSEIDON_API int poseidon_run_local(const poseidon_local_options* options, poseidon_local_end* end);

#ifdef __cplusplus
}
#endif

#endif
