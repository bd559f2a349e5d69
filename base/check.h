// Checks of what the programmer promised: always on, they print both operands and abort the rank.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

namespace shoestring::internal {

[[noreturn]] inline void CheckFailed(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what.c_str());
  std::abort();
}

template <typename A, typename B>
std::string DescribeOperands(const char* expression, const A& a, const B& b) {
  std::ostringstream out;
  out << expression << " (" << a << " vs. " << b << ")";
  return out.str();
}

}  // namespace shoestring::internal

#define CHECK(condition)                                                                   \
  do {                                                                                     \
    if (!(condition)) ::shoestring::internal::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)

#define SHOESTRING_CHECK_OP(op, a, b)                                                                           \
  do {                                                                                                          \
    const auto& check_a_ = (a);                                                                                 \
    const auto& check_b_ = (b);                                                                                 \
    if (!(check_a_ op check_b_))                                                                                \
      ::shoestring::internal::CheckFailed(                                                                      \
          __FILE__, __LINE__, ::shoestring::internal::DescribeOperands(#a " " #op " " #b, check_a_, check_b_)); \
  } while (false)

#define CHECK_EQ(a, b) SHOESTRING_CHECK_OP(==, a, b)
#define CHECK_NE(a, b) SHOESTRING_CHECK_OP(!=, a, b)
#define CHECK_LT(a, b) SHOESTRING_CHECK_OP(<, a, b)
#define CHECK_LE(a, b) SHOESTRING_CHECK_OP(<=, a, b)
#define CHECK_GT(a, b) SHOESTRING_CHECK_OP(>, a, b)
#define CHECK_GE(a, b) SHOESTRING_CHECK_OP(>=, a, b)
