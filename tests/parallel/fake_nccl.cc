// The fake's streams, events, messages and faults.
#include "tests/parallel/fake_nccl.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {

struct FakeNccl::FakeComm {
  std::string id;
  int size = 0;
  int index = 0;
  int polls_left = 0;  // how often AsyncError still says that the last group is being enqueued
  bool stuck = false;
  std::map<int, int64_t> sent, received;  // messages with each member so far
  std::shared_ptr<std::atomic<bool>> aborted = std::make_shared<std::atomic<bool>>(false);
};

struct FakeNccl::FakeQueue {
  bool inline_tasks = false;
  std::deque<std::function<void()>> tasks;
  bool busy = false;
  bool ending = false;
  std::thread thread;
};

struct FakeNccl::FakeEvent {
  std::shared_ptr<bool> done = std::make_shared<bool>(true);  // of the last Record
};

// NCCL allows one thread in a communicator, and none besides the one that aborts.
class FakeNccl::Inside {
 public:
  explicit Inside(std::atomic<int>& count) : count_(count) { CHECK_EQ(++count_, 1); }
  ~Inside() { --count_; }

 private:
  std::atomic<int>& count_;
};

NcclId FakeNcclWorld::MakeId() {
  const std::lock_guard<std::mutex> lock(mutex_);
  NcclId id;
  const std::string text = absl::StrCat("fake ", ids_++);
  std::copy(text.begin(), text.end(), id.bytes.begin());
  return id;
}

void FakeNcclWorld::Release() {
  const std::lock_guard<std::mutex> lock(mutex_);
  released_ = true;
  changed_.notify_all();
}

FakeNccl::FakeNccl(FakeNcclWorld& world, bool inline_streams) : world_(world), inline_streams_(inline_streams) {}

FakeNccl::~FakeNccl() {
  while (inside_ > 0) std::this_thread::yield();  // a hung abort that was let go
  while (!queues_.empty()) DestroyQueue(*queues_.begin());
  while (!events_.empty()) DestroyEvent(*events_.begin());
  while (!comms_.empty()) Delete(*comms_.begin());
}

// --- communicators
// ----------------------------------------------------------------------------------------------------

NcclResult FakeNccl::MakeId(NcclId* id) {
  *id = world_.MakeId();
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Init(Comm* comm, int size, const NcclId& id, int index, const NcclCommConfig&) {
  const Inside inside(inside_);
  auto* made = new FakeComm;
  made->id = id.bytes.data();
  made->size = size;
  made->index = index;
  comms_.insert(made);
  *comm = made;
  const std::lock_guard<std::mutex> lock(world_.mutex_);
  ++world_.joined_[made->id];
  return NcclResult::kInProgress;
}

NcclResult FakeNccl::AsyncError(Comm handle, NcclResult* state) {
  const Inside inside(inside_);
  auto& comm = *static_cast<FakeComm*>(handle);
  *state = faults_.state;
  if (*state != NcclResult::kSuccess) return NcclResult::kSuccess;
  const std::lock_guard<std::mutex> lock(world_.mutex_);
  const bool joining = world_.joined_[comm.id] < comm.size || faults_.hang_in_init;
  if (joining || comm.stuck || comm.polls_left > 0) *state = NcclResult::kInProgress;
  if (comm.polls_left > 0) --comm.polls_left;
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Finalize(Comm handle) {
  const Inside inside(inside_);
  static_cast<FakeComm*>(handle)->polls_left = 1;
  return NcclResult::kInProgress;
}

NcclResult FakeNccl::Destroy(Comm handle) {
  const Inside inside(inside_);
  Delete(static_cast<FakeComm*>(handle));
  return NcclResult::kSuccess;
}

void FakeNccl::Delete(FakeComm* comm) {
  comms_.erase(comm);
  delete comm;
}

NcclResult FakeNccl::Abort(Comm handle) {
  const Inside inside(inside_);
  ++aborts_;
  std::unique_lock<std::mutex> lock(world_.mutex_);
  if (faults_.hang_in_abort) world_.changed_.wait(lock, [this] { return world_.released_; });
  auto* comm = static_cast<FakeComm*>(handle);
  *comm->aborted = true;
  world_.changed_.notify_all();
  Delete(comm);
  return NcclResult::kSuccess;
}

// --- verbs
// ------------------------------------------------------------------------------------------------------------

NcclResult FakeNccl::GroupStart() {
  const Inside inside(inside_);
  CHECK(parts_.empty());
  ++groups_;
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::GroupEnd() {
  const Inside inside(inside_);
  if (parts_.empty()) return NcclResult::kSuccess;
  if (faults_.hang_in_call) {
    std::unique_lock<std::mutex> lock(world_.mutex_);
    world_.changed_.wait(lock, [this] { return world_.released_; });
  }
  // Messages travel buffered, so sends first is as good as all at once.
  std::stable_partition(parts_.begin(), parts_.end(), [](const Part& part) { return part.sends; });
  parts_comm_->polls_left = 2;
  parts_comm_->stuck = faults_.hang_in_issue;
  if (!parts_comm_->stuck) {
    Enqueue(*parts_queue_,
            [this, parts = std::move(parts_), aborted = parts_comm_->aborted] { RunParts(parts, aborted); });
  }
  parts_.clear();
  return NcclResult::kInProgress;
}

void FakeNccl::RunParts(const std::vector<Part>& parts, const std::shared_ptr<std::atomic<bool>>& aborted) {
  for (const Part& part : parts) {
    std::unique_lock<std::mutex> lock(world_.mutex_);
    if (part.sends) {
      world_.mail_[part.key].assign(part.from, part.from + part.bytes);
      world_.changed_.notify_all();
      continue;
    }
    const auto arrived = [&] { return world_.mail_.count(part.key) > 0; };
    world_.changed_.wait(lock, [&] { return *aborted || world_.released_ || arrived(); });
    if (*aborted || !arrived()) return;
    const std::vector<std::byte> message = std::move(world_.mail_[part.key]);
    world_.mail_.erase(part.key);
    lock.unlock();
    CHECK_EQ(message.size(), part.bytes);
    if (part.receive) {
      part.receive(message.data());
    } else {
      std::memcpy(part.to, message.data(), message.size());
    }
  }
}

void FakeNccl::AddSend(const void* from, size_t bytes, int peer, FakeComm& comm, Queue queue) {
  Part part{.sends = true, .from = static_cast<const std::byte*>(from), .bytes = bytes};
  part.key = {comm.id, comm.index, peer, comm.sent[peer]++};
  parts_.push_back(std::move(part));
  parts_queue_ = static_cast<FakeQueue*>(queue);
  parts_comm_ = &comm;
}

void FakeNccl::AddReceive(void* to, size_t bytes, int peer, FakeComm& comm, Queue queue,
                          std::function<void(const std::byte*)> receive) {
  Part part{.to = static_cast<std::byte*>(to), .bytes = bytes, .receive = std::move(receive)};
  part.key = {comm.id, peer, comm.index, comm.received[peer]++};
  parts_.push_back(std::move(part));
  parts_queue_ = static_cast<FakeQueue*>(queue);
  parts_comm_ = &comm;
}

NcclResult FakeNccl::Send(const void* from, size_t bytes, int peer, Comm comm, Queue queue) {
  const Inside inside(inside_);
  AddSend(from, bytes, peer, *static_cast<FakeComm*>(comm), queue);
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Receive(void* to, size_t bytes, int peer, Comm comm, Queue queue) {
  const Inside inside(inside_);
  AddReceive(to, bytes, peer, *static_cast<FakeComm*>(comm), queue);
  return NcclResult::kSuccess;
}

namespace {

template <typename T>
void AddTo(void* sum, const std::byte* x, size_t count, bool first) {
  for (size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, x + i * sizeof(T), sizeof(T));
    static_cast<T*>(sum)[i] = first ? value : static_cast<T*>(sum)[i] + value;
  }
}

void AddAs(NcclType type, void* sum, const std::byte* x, size_t count, bool first) {
  switch (type) {
    case NcclType::kU8: CHECK(type != NcclType::kU8); return;
    case NcclType::kI64: return AddTo<int64_t>(sum, x, count, first);
    case NcclType::kF32: return AddTo<float>(sum, x, count, first);
    case NcclType::kF64: return AddTo<double>(sum, x, count, first);
  }
}

size_t SizeOfType(NcclType type) { return type == NcclType::kF32 ? 4 : 8; }

}  // namespace

// Everyone sends everyone, itself too, what that member adds up, and adds in order of members.
void FakeNccl::AddSum(const void*, void* to, size_t count, NcclType type, FakeComm& comm, Queue queue,
                      const std::function<const std::byte*(int member)>& part_of) {
  const size_t bytes = count * SizeOfType(type);
  for (int j = 0; j < comm.size; ++j) AddSend(part_of(j), bytes, j, comm, queue);
  for (int j = 0; j < comm.size; ++j) {
    AddReceive(nullptr, bytes, j, comm, queue,
               [=](const std::byte* message) { AddAs(type, to, message, count, j == 0); });
  }
}

NcclResult FakeNccl::AllReduce(void* x, size_t count, NcclType type, Comm comm, Queue queue) {
  const Inside inside(inside_);
  AddSum(x, x, count, type, *static_cast<FakeComm*>(comm), queue,
         [x](int) { return static_cast<const std::byte*>(x); });
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::ReduceScatter(const void* from, void* to, size_t to_count, NcclType type, Comm comm, Queue queue) {
  const Inside inside(inside_);
  AddSum(from, to, to_count, type, *static_cast<FakeComm*>(comm), queue,
         [=](int member) { return static_cast<const std::byte*>(from) + member * to_count * SizeOfType(type); });
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::AllGather(const void* from, void* to, size_t from_bytes, Comm handle, Queue queue) {
  const Inside inside(inside_);
  auto& comm = *static_cast<FakeComm*>(handle);
  for (int j = 0; j < comm.size; ++j) {
    AddSend(from, from_bytes, j, comm, queue);
    AddReceive(static_cast<std::byte*>(to) + j * from_bytes, from_bytes, j, comm, queue);
  }
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Broadcast(const void* from, void* to, size_t bytes, int root, Comm handle, Queue queue) {
  const Inside inside(inside_);
  auto& comm = *static_cast<FakeComm*>(handle);
  if (comm.index == root) {
    for (int j = 0; j < comm.size; ++j) AddSend(from, bytes, j, comm, queue);
  }
  AddReceive(to, bytes, root, comm, queue);
  return NcclResult::kSuccess;
}

// --- streams and events
// -----------------------------------------------------------------------------------------------

void FakeNccl::Enqueue(FakeQueue& queue, std::function<void()> task) {
  if (queue.inline_tasks) {
    task();
    return;
  }
  const std::lock_guard<std::mutex> lock(world_.mutex_);
  queue.tasks.push_back(std::move(task));
  world_.changed_.notify_all();
}

NcclLibrary::Queue FakeNccl::QueueOf(Stream& stream) {
  FakeQueue*& queue = stream_queues_[&stream];
  if (queue == nullptr) {
    Queue made = nullptr;
    MakeQueue(&made);
    queue = static_cast<FakeQueue*>(made);
    queue->inline_tasks = inline_streams_;
  }
  return queue;
}

NcclResult FakeNccl::MakeQueue(Queue* made) {
  auto* queue = new FakeQueue;
  queue->thread = std::thread([this, queue] {
    std::unique_lock<std::mutex> lock(world_.mutex_);
    while (true) {
      world_.changed_.wait(lock, [&] { return queue->ending || !queue->tasks.empty(); });
      if (queue->tasks.empty()) return;
      const std::function<void()> task = std::move(queue->tasks.front());
      queue->tasks.pop_front();
      queue->busy = true;
      lock.unlock();
      task();
      lock.lock();
      queue->busy = false;
      world_.changed_.notify_all();
    }
  });
  queues_.insert(queue);
  *made = queue;
  return NcclResult::kSuccess;
}

void FakeNccl::DestroyQueue(Queue handle) {
  auto* queue = static_cast<FakeQueue*>(handle);
  queues_.erase(queue);
  {
    const std::lock_guard<std::mutex> lock(world_.mutex_);
    queue->ending = true;
    world_.changed_.notify_all();
  }
  queue->thread.join();
  delete queue;
}

void FakeNccl::Drain(Stream& stream) {
  auto* queue = static_cast<FakeQueue*>(QueueOf(stream));
  std::unique_lock<std::mutex> lock(world_.mutex_);
  world_.changed_.wait(lock, [&] { return queue->tasks.empty() && !queue->busy; });
}

NcclResult FakeNccl::MakeEvent(Event* event) {
  if (faults_.bad_device) return NcclResult::kCudaError;
  auto* made = new FakeEvent;
  events_.insert(made);
  *event = made;
  return NcclResult::kSuccess;
}

void FakeNccl::DestroyEvent(Event handle) {
  auto* event = static_cast<FakeEvent*>(handle);
  events_.erase(event);
  delete event;
}

NcclResult FakeNccl::Record(Event handle, Queue queue) {
  if (faults_.bad_device) return NcclResult::kCudaError;
  auto done = std::make_shared<bool>(false);
  {
    const std::lock_guard<std::mutex> lock(world_.mutex_);
    static_cast<FakeEvent*>(handle)->done = done;
  }
  Enqueue(*static_cast<FakeQueue*>(queue), [this, done] {
    const std::lock_guard<std::mutex> lock(world_.mutex_);
    *done = true;
    world_.changed_.notify_all();
  });
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::WaitEvent(Queue queue, Event handle) {
  if (faults_.bad_device) return NcclResult::kCudaError;
  std::shared_ptr<bool> done;
  {
    const std::lock_guard<std::mutex> lock(world_.mutex_);
    done = static_cast<FakeEvent*>(handle)->done;
  }
  Enqueue(*static_cast<FakeQueue*>(queue), [this, done] {
    std::unique_lock<std::mutex> lock(world_.mutex_);
    world_.changed_.wait(lock, [&] { return *done; });
  });
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::EventDone(Event handle, bool* done) {
  if (faults_.bad_device) return NcclResult::kCudaError;
  const std::lock_guard<std::mutex> lock(world_.mutex_);
  *done = *static_cast<FakeEvent*>(handle)->done;
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Copy(const NcclCopy& copy, Queue queue) {
  if (faults_.bad_device) return NcclResult::kCudaError;
  Enqueue(*static_cast<FakeQueue*>(queue), [copy] {
    for (size_t row = 0; row < copy.rows; ++row) {
      std::memcpy(copy.to + row * copy.to_pitch, copy.from + row * copy.from_pitch, copy.row_bytes);
    }
  });
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Allocate(size_t bytes, std::byte** memory) {
  *memory = new std::byte[bytes];
  return NcclResult::kSuccess;
}

}  // namespace shoestring
