// Memory of messages on their way between threads: pooled, so that once every size has occurred nothing is allocated.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"

namespace shoestring {

class PayloadPool;

// Bytes that belong to one holder at a time and go back to their pool with it. Null when it has no bytes.
class Payload {
 public:
  Payload() = default;
  Payload(Payload&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_class_(other.size_class_) {}
  Payload& operator=(Payload&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(size_class_, other.size_class_);
    other.Release();
    return *this;
  }
  ~Payload() { Release(); }

  std::byte* data() const { return data_; }
  inline void Release();

 private:
  friend class PayloadPool;
  Payload(PayloadPool* pool, std::byte* data, int size_class) : pool_(pool), data_(data), size_class_(size_class) {}

  PayloadPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  int size_class_ = 0;
};

// Buffers of powers of two bytes; keeps what it once allocated. Thread-safe. Outlives its payloads.
class PayloadPool {
 public:
  // Uninitialised, aligned for any number.
  Payload Acquire(int64_t bytes) {
    if (bytes == 0) return {};
    const int size_class = std::bit_width(static_cast<uint64_t>(bytes - 1));
    CHECK_LT(size_class, static_cast<int>(classes_.size()));
    const std::lock_guard<std::mutex> lock(mutex_);
    SizeClass& of_size = classes_[size_class];
    if (of_size.free.empty()) {
      all_.emplace_back(new std::byte[size_t{1} << size_class]);
      of_size.free.reserve(++of_size.buffers);  // so that giving back never allocates
      of_size.free.push_back(all_.back().get());
    }
    std::byte* const data = of_size.free.back();
    of_size.free.pop_back();
    return {this, data, size_class};
  }
  // Buffers allocated so far: constant once a program has warmed up.
  int64_t buffers() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int64_t>(all_.size());
  }

 private:
  friend class Payload;
  void Return(std::byte* data, int size_class) {
    const std::lock_guard<std::mutex> lock(mutex_);
    classes_[size_class].free.push_back(data);
  }

  struct SizeClass {
    std::vector<std::byte*> free;
    size_t buffers = 0;
  };
  std::mutex mutex_;
  std::array<SizeClass, 48> classes_;
  std::vector<std::unique_ptr<std::byte[]>> all_;
};

inline void Payload::Release() {
  if (data_ != nullptr) pool_->Return(std::exchange(data_, nullptr), size_class_);
}

}  // namespace shoestring
