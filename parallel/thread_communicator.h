// Ranks as threads of one process: the communicator of tests and of 'verify'.
#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mesh.h"
#include "parallel/thread_payload.h"
#include "parallel/thread_workers.h"

namespace shoestring {

class ThreadGroup;

// What the ranks of one process share. Views are host memory of the process, streams those of backends that have
// finished when an operation returns (the CPU backend). Outlives its communicators.
//
// Nobody spins: who waits, sleeps. A call outside of groups in flight is done by the rank's own thread; what was
// started with GroupStart is moved by a few worker threads of the world, or by the rank while it waits. A payload is
// copied twice: out of the sender's memory and into the receiver's.
//
// Order of sums: ((x_0 + x_1) + x_2) + ..., by index of the member, starting from x_0 itself; -0 + nothing is -0.
class ThreadWorld {
 public:
  struct Options {
    int workers = 2;  // threads for asynchronous groups; started by the first of them
  };

  // `size` ranks: 0 .. size - 1.
  explicit ThreadWorld(int size) : ThreadWorld(size, Options()) {}
  ThreadWorld(int size, const Options& options);
  ~ThreadWorld();

  // The communicators of the group's members, in their order; each then belongs to the thread of its rank. As many
  // groups over the same ranks as are wanted; also anew, after one has failed. Thread-safe.
  std::vector<std::unique_ptr<Communicator>> MakeGroup(const RankGroup& group);

  // Buffers that messages have needed so far.
  int64_t payload_buffers() { return payloads_.buffers(); }

 private:
  const int size_;
  PayloadPool payloads_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<ThreadGroup>> groups_;
  ThreadWorkers workers_;  // the last member: ends before what its tasks touch
};

}  // namespace shoestring
