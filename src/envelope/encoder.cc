#include "envelope/encoder.h"

#include <utility>

#include "envelope/batch_encoder.h"
#include "envelope/plan.h"

namespace relay::envelope {

struct Encoder::Impl {
  explicit Impl(Plan compiled) : plan(std::move(compiled)), batches(plan) {}

  Plan plan;
  BatchEncoder batches;
};

Encoder::Encoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Encoder::~Encoder() = default;

Result<std::unique_ptr<Encoder>> Encoder::make(EncoderOptions options) {
  Result<Plan> plan = Plan::make(std::move(options));
  if (!plan) return fail(plan.error());
  return std::make_unique<Encoder>(std::make_unique<Impl>(std::move(*plan)));
}

MessageBatch Encoder::encode(RecordBatch records) {
  return impl_->batches.encode(std::move(records));
}

}  // namespace relay::envelope
