#include "backends/webhook/receiver_source.h"

#include "core/log.h"
#include "core/uuid.h"

namespace relay::webhook {

namespace {

bool is_loopback(std::string_view host) {
  return host == "::1" || host.starts_with("127.");
}

}  // namespace

ReceiverSource::ReceiverSource(ReceiverOptions options, std::string id_scope, FieldMapping mapping)
    : options_(std::move(options)),
      rules_{std::move(id_scope), options_.auth.kind(), options_.auth.secret_header()},
      mapping_(std::move(mapping)),
      shape_(std::make_shared<const TableShape>(TableShape{options_.path, {}})),
      queue_({options_.max_waiting, options_.max_waiting_bytes, options_.response_timeout}) {}

Result<void> ReceiverSource::open(std::stop_token) {
  queue_.open();
  if (receiver_) return {};
  if (!is_loopback(options_.host)) {
    if (options_.auth.kind() == ReceiverAuth::Kind::none && options_.tls_ca.empty()) {
      log::warn("no_auth", options_.pipeline,
                "any client that reaches {} may write: auth is none and no client certificate is "
                "asked for",
                options_.listen);
    } else if (options_.tls_cert.empty() && !options_.auth.signs()) {
      log::warn("no_tls", options_.pipeline,
                "secrets come to {} unencrypted: set tls_cert and tls_key, or put a proxy with TLS "
                "before it",
                options_.listen);
    }
  }
  auto started = Receiver::start(options_, queue_);
  if (!started) return fail(started.error());
  receiver_ = std::move(*started);
  log::info("listening", options_.pipeline, "requests are received at {}://{}{}",
            options_.tls_cert.empty() ? "http" : "https", options_.listen, options_.path);
  return {};
}

Result<RecordBatch> ReceiverSource::read(const ReadLimits& limits, Deadline deadline,
                                         std::stop_token stop) {
  RecordBatch batch;
  for (const RequestQueue::Taken& taken : queue_.take(limits, deadline, stop)) {
    Record record = to_record(taken.request, rules_, mapping_, new_uuid(), batch.arena);
    record.id = taken.number;
    batch.add(std::move(record), shape_);
  }
  return batch;
}

Result<void> ReceiverSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  if (receiver_) receiver_->settle(settled.id);
  return {};
}

void ReceiverSource::close() {
  queue_.close();
  if (receiver_) receiver_->give_up_open();
}

}  // namespace relay::webhook
