// NCCL in ordinary memory, for tests of the communicator that sits on it: members are threads, streams are threads or
// the caller itself, and every fault of the real library can be had on demand.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "parallel/nccl/library.h"

namespace shoestring {

// What all members of all communicators share.
class FakeNcclWorld {
 public:
  NcclId MakeId();
  // Lets everything that hangs end, so that a test can finish.
  void Release();

 private:
  friend class FakeNccl;
  using Key = std::tuple<std::string, int, int, int64_t>;  // id, from, to, how many earlier ones

  std::mutex mutex_;
  std::condition_variable changed_;
  int ids_ = 0;
  bool released_ = false;
  std::map<std::string, int> joined_;
  std::map<Key, std::vector<std::byte>> mail_;
};

class FakeNccl final : public NcclLibrary {
 public:
  struct Faults {
    std::atomic<bool> hang_in_init{false};
    std::atomic<bool> hang_in_issue{false};               // a group stays in progress for ever
    std::atomic<bool> hang_in_call{false};                // GroupEnd does not even return, until the world is released
    std::atomic<bool> hang_in_abort{false};               // until the world is released
    std::atomic<NcclResult> state{NcclResult::kSuccess};  // what AsyncError reports, if not this
    std::atomic<bool> bad_device{false};                  // events fail
  };

  // `inline_streams`: work on a Stream is done by the thread that enqueues it, as the CPU backend does; else behind its
  // back, as a GPU does.
  FakeNccl(FakeNcclWorld& world, bool inline_streams);
  ~FakeNccl() override;

  Faults& faults() { return faults_; }
  int aborts() const { return aborts_; }
  int groups() const { return groups_; }
  void Drain(Stream& stream);  // until all that is enqueued has run

  int version() const override { return 22809; }
  NcclResult MakeId(NcclId* id) override;
  NcclResult Init(Comm* comm, int size, const NcclId& id, int index, const NcclCommConfig& config) override;
  NcclResult AsyncError(Comm comm, NcclResult* state) override;
  NcclResult Finalize(Comm comm) override;
  NcclResult Destroy(Comm comm) override;
  NcclResult Abort(Comm comm) override;
  std::string LastError(Comm comm) override { return comm == nullptr ? "" : "the fake says so"; }
  NcclResult GroupStart() override;
  NcclResult GroupEnd() override;
  NcclResult Send(const void* from, size_t bytes, int peer, Comm comm, Queue queue) override;
  NcclResult Receive(void* to, size_t bytes, int peer, Comm comm, Queue queue) override;
  NcclResult AllReduce(void* x, size_t count, NcclType type, Comm comm, Queue queue) override;
  NcclResult ReduceScatter(const void* from, void* to, size_t to_count, NcclType type, Comm comm, Queue queue) override;
  NcclResult AllGather(const void* from, void* to, size_t from_bytes, Comm comm, Queue queue) override;
  NcclResult Broadcast(const void* from, void* to, size_t bytes, int root, Comm comm, Queue queue) override;
  void EnterThread() override {}
  Queue QueueOf(Stream& stream) override;
  NcclResult MakeQueue(Queue* queue) override;
  void DestroyQueue(Queue queue) override;
  NcclResult MakeEvent(Event* event) override;
  void DestroyEvent(Event event) override;
  NcclResult Record(Event event, Queue queue) override;
  NcclResult WaitEvent(Queue queue, Event event) override;
  NcclResult EventDone(Event event, bool* done) override;
  NcclResult Copy(const NcclCopy& copy, Queue queue) override;
  NcclResult Allocate(size_t bytes, std::byte** memory) override;
  void Free(std::byte* memory) override { delete[] memory; }

 private:
  struct FakeComm;
  struct FakeQueue;
  struct FakeEvent;
  // Half of an exchange, bound to its message when it is issued.
  struct Part {
    bool sends = false;
    const std::byte* from = nullptr;
    std::byte* to = nullptr;
    size_t bytes = 0;
    FakeNcclWorld::Key key{};
    std::function<void(const std::byte* message)> receive{};  // empty: copy to `to`
  };
  class Inside;  // counts threads inside the library

  void Delete(FakeComm* comm);
  void Enqueue(FakeQueue& queue, std::function<void()> task);
  void AddSend(const void* from, size_t bytes, int peer, FakeComm& comm, Queue queue);
  void AddReceive(void* to, size_t bytes, int peer, FakeComm& comm, Queue queue,
                  std::function<void(const std::byte*)> receive = {});
  void AddSum(const void* mine, void* to, size_t count, NcclType type, FakeComm& comm, Queue queue,
              const std::function<const std::byte*(int member)>& part_of);
  void RunParts(const std::vector<Part>& parts, const std::shared_ptr<std::atomic<bool>>& aborted);

  FakeNcclWorld& world_;
  const bool inline_streams_;
  Faults faults_;
  std::atomic<int> inside_{0};
  std::atomic<int> aborts_{0};
  std::atomic<int> groups_{0};
  std::map<Stream*, FakeQueue*> stream_queues_;
  std::set<FakeQueue*> queues_;  // all; a communicator that hangs leaves its own behind
  std::set<FakeEvent*> events_;
  std::set<FakeComm*> comms_;
  std::vector<Part> parts_;  // of the open group
  FakeQueue* parts_queue_ = nullptr;
  FakeComm* parts_comm_ = nullptr;
};

}  // namespace shoestring
