// The exchange of a rank that holds every expert: a permutation of rows.
#pragma once

#include <memory>

#include "parallel/expert_exchange.h"

namespace shoestring {

// Has no state: one serves every layer of the shape. R = T*K, so no token is ever dropped.
std::unique_ptr<ExpertExchange> MakeLocalExchange(const ExchangeShape& shape);

}  // namespace shoestring
