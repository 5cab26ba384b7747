// Fibers, barriers and shared memory of the emulated device, and its C interface for the tests.
#include <csetjmp>
#include <csignal>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#include "cuda_runtime.h"

#include "masked_cross_entropy/kernels.h"
#include "token_classification_head/kernels.h"

namespace emulation {
namespace {

constexpr size_t STACK_BYTES = 128 * 1024;
const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));

// Memory that ends where a page begins that must not be touched.
struct Guarded {
  size_t mapped;
  unsigned char *base, *start;
  explicit Guarded(size_t bytes) : mapped((bytes + 15 + page) / page * page + page) {
    base = static_cast<unsigned char*>(
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED) throw std::runtime_error("mmap failed");
    mprotect(base + mapped - page, page, PROT_NONE);
    start = base + mapped - page - (bytes + 15) / 16 * 16;
    std::memset(base, 0xff, mapped - page);  // NaN: what is read before it is written shows
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { munmap(base, mapped); }
};

struct Barrier {
  int expected = 0, arrived = 0;
  long generation = 0;
};

struct Block {
  int rank;
  unsigned index;
  Guarded shared;
  Barrier barrier;
  std::vector<Barrier> warps;
  std::vector<uint64_t> exchanged;
};

struct Thread {
  ucontext_t context;
  Block* block;
  unsigned index;
  bool is_done = false;
  const Barrier* waits_for = nullptr;
  long generation = 0, of_cluster = 0;
};

ucontext_t scheduler;
sigjmp_buf fault;
Thread* current;
std::vector<std::unique_ptr<Block>> blocks;  // of the cluster that runs
Barrier cluster_barrier;
const std::function<void()>* running;

long arrive(Barrier& barrier) {
  const long generation = barrier.generation;
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    ++barrier.generation;
  }
  return generation;
}

void wait(const Barrier& barrier, long generation) {
  if (barrier.generation != generation) return;
  current->waits_for = &barrier;
  current->generation = generation;
  swapcontext(&current->context, &scheduler);
}

void sync(Barrier& barrier) { wait(barrier, arrive(barrier)); }

void begin() {
  (*running)();
  current->is_done = true;
  swapcontext(&current->context, &scheduler);
}

void on_fault(int) { siglongjmp(fault, 1); }

// Gives every lane of a warp a turn; returns how many took it.
int turn(Thread* warp) {
  int turns = 0;
  for (int i = 0; i < 32; ++i) {
    Thread& thread = warp[device.backwards ? 31 - i : i];
    const bool waits = thread.waits_for && thread.waits_for->generation == thread.generation;
    if (thread.is_done || waits) continue;
    ++turns;
    current = &thread;
    thread.waits_for = nullptr;
    threadIdx = dim3(thread.index);
    blockIdx = dim3(thread.block->index);
    swapcontext(&scheduler, &thread.context);
  }
  return turns;
}

// A warp runs as far as it can before the next one does: as far apart as barriers let them be.
void run_cluster(std::vector<Thread>& threads) {
  for (size_t waiting = 0, warp = 0, warps = threads.size() / 32; waiting < warps; ++warp) {
    Thread* first = &threads[(device.backwards ? warps - 1 - warp % warps : warp % warps) * 32];
    ++waiting;
    while (turn(first) > 0) waiting = 0;
  }
  for (const Thread& thread : threads) {
    if (!thread.is_done) throw std::runtime_error("threads wait at a barrier that the others never reach");
  }
}

}  // namespace

unsigned char* shared_memory() { return current->block->shared.start; }
unsigned char* shared_memory_of(int rank) { return blocks[static_cast<size_t>(rank)]->shared.start; }
int cluster_size() { return static_cast<int>(blocks.size()); }
int cluster_rank() { return current->block->rank; }
void sync_block() { sync(current->block->barrier); }
void arrive_cluster() { current->of_cluster = arrive(cluster_barrier); }
void wait_cluster() { wait(cluster_barrier, current->of_cluster); }
const uint64_t* exchange(uint64_t mine) {
  uint64_t* all = current->block->exchanged.data();
  all[current->index] = mine;
  take();
  return all + current->index / 32 * 32;
}
void take() { sync(current->block->warps[current->index / 32]); }

void run(dim3 grid, dim3 block, size_t shared_bytes, int cluster, const std::function<void()>& kernel) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  struct sigaction action {}, old[3];
  action.sa_handler = on_fault;
  const int signals[] = {SIGSEGV, SIGBUS, SIGILL};  // SIGILL: the sanitizers' trap
  for (int i = 0; i < 3; ++i) sigaction(signals[i], &action, &old[i]);
  const auto restore = [&] { for (int i = 0; i < 3; ++i) sigaction(signals[i], &old[i], nullptr); };
  gridDim = grid;
  blockDim = block;
  running = &kernel;
  try {
    for (unsigned first = 0; first < grid.x; first += static_cast<unsigned>(cluster)) {
      blocks.clear();
      std::vector<Thread> threads(static_cast<size_t>(cluster) * block.x);
      cluster_barrier = {static_cast<int>(threads.size())};
      for (int rank = 0; rank < cluster; ++rank) {
        blocks.emplace_back(new Block{rank, first + static_cast<unsigned>(rank), Guarded(shared_bytes),
                                      {static_cast<int>(block.x)},
                                      std::vector<Barrier>(block.x / 32, Barrier{32}),
                                      std::vector<uint64_t>(block.x)});
      }
      for (size_t i = 0; i < threads.size(); ++i) {
        if (stacks.size() <= i) stacks.emplace_back(new char[STACK_BYTES]);
        threads[i].block = blocks[i / block.x].get();
        threads[i].index = static_cast<unsigned>(i % block.x);
        getcontext(&threads[i].context);
        threads[i].context.uc_stack.ss_sp = stacks[i].get();
        threads[i].context.uc_stack.ss_size = STACK_BYTES;
        makecontext(&threads[i].context, begin, 0);
      }
      if (sigsetjmp(fault, 1)) throw std::runtime_error("a thread left its memory or its alignment");
      run_cluster(threads);
    }
  } catch (...) {
    restore();
    throw;
  }
  restore();
}

namespace {

std::string message;

// 0, or 1 where last_error() tells why not.
template <class Call>
int guarded(Call call) {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    message = error.what();
    return 1;
  }
}

}  // namespace
}  // namespace emulation

extern "C" {
const char* last_error() { return emulation::message.c_str(); }
void set_device(int ptx_version, int shared_limit, bool backwards) {
  emulation::device = {ptx_version, shared_limit, backwards};
}
extern const size_t struct_bytes[3] = {
    sizeof(bigft::CrossEntropyRows), sizeof(bigft::CrossEntropyTile), sizeof(bigft::TokenHeadRows)};
int loss(const bigft::CrossEntropyRows* rows) {
  return emulation::guarded([&] { bigft::masked_cross_entropy::launch_loss(*rows, nullptr); });
}
int statistics_tile(const bigft::CrossEntropyTile* tile) {
  return emulation::guarded([&] { bigft::masked_cross_entropy::launch_statistics_tile(*tile, nullptr); });
}
int gradient_tile(const bigft::CrossEntropyTile* tile) {
  return emulation::guarded([&] { bigft::masked_cross_entropy::launch_gradient_tile(*tile, nullptr); });
}
int scale(void* x, bigft::DType dtype, int64_t numel, const void* factor, bool is_double) {
  return emulation::guarded(
      [&] { bigft::masked_cross_entropy::launch_scale(x, dtype, numel, factor, is_double, nullptr); });
}
int forward(const bigft::TokenHeadRows* head) {
  return emulation::guarded([&] { bigft::token_classification_head::launch_forward(*head, nullptr); });
}
}
