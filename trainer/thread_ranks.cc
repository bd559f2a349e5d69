// Threads, and the links between them.
#include "trainer/thread_ranks.h"

#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "parallel/thread_communicator.h"

namespace shoestring {
namespace {

// Communicators of groups that some members have asked for already.
class GroupBook {
 public:
  explicit GroupBook(ThreadWorld& world) : world_(world) {}
  std::unique_ptr<Communicator> Take(const RankGroup& group, Rank rank) {
    auto [it, fresh] = groups_.try_emplace(group.name);
    if (fresh) it->second = world_.MakeGroup(group);
    return std::move(it->second[group.IndexOf(rank)]);
  }

 private:
  ThreadWorld& world_;
  std::map<std::string, std::vector<std::unique_ptr<Communicator>>> groups_;
};

// Keeps what else the status carries: that the run was stopped on purpose.
absl::Status OfRank(const absl::Status& status, int rank) {
  absl::Status named = WithContext(status, absl::StrCat("rank ", rank));
  status.ForEachPayload([&](absl::string_view name, const absl::Cord& value) { named.SetPayload(name, value); });
  return named;
}

// Of ranks that waited in vain some waited for others that did: only together they say who was late.
absl::Status AllThatWaited(const std::vector<absl::Status>& failures) {
  std::string all;
  for (const absl::Status& status : failures) {
    if (absl::IsDeadlineExceeded(status)) absl::StrAppend(&all, all.empty() ? "" : "; ", status.message());
  }
  return absl::DeadlineExceededError(all);
}

absl::Status NoThread(int rank, int ranks, const std::system_error& error) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "rank ", rank, " of ", ranks, ": the system gives no thread for it (", error.code().message(),
      "); use fewer ranks, or raise the limit of threads and memory (ulimit -u, ulimit -v, a container's)"));
}

}  // namespace

absl::Status RunThreadRanks(const Mesh& mesh, absl::FunctionRef<absl::Status(RankLinks)> body) {
  ThreadWorld world(mesh.world_size());
  std::vector<RankLinks> links;
  {
    GroupBook book(world);
    for (int r = 0; r < mesh.world_size(); ++r) {
      links.push_back(MakeLinks(mesh, Rank(r), [&](const RankGroup& group) { return book.Take(group, Rank(r)); }));
    }
  }
  std::mutex mutex;
  std::vector<absl::Status> failures;  // in the order of their times
  std::vector<std::thread> threads;
  const auto fail = [&](const absl::Status& status) {
    const std::lock_guard<std::mutex> lock(mutex);
    failures.push_back(status);
  };
  const auto run = [&](int r) {
    const absl::Status status = body(std::move(links[r]));
    if (!status.ok()) fail(OfRank(status, r));
  };
  for (int r = 0; r < mesh.world_size(); ++r) {
    try {
      threads.emplace_back(run, r);
    } catch (const std::system_error& error) {
      fail(NoThread(r, mesh.world_size(), error));
      for (; r < mesh.world_size(); ++r)
        const RankLinks gone = std::move(links[r]);  // the others wait for them in vain
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (failures.empty()) return absl::OkStatus();
  // Whose links went takes others along, which may be quicker to say so.
  for (const absl::Status& status : failures) {
    if (absl::IsDeadlineExceeded(status)) return AllThatWaited(failures);
    if (!absl::IsUnavailable(status)) return status;
  }
  return failures[0];
}

}  // namespace shoestring
