#pragma once

#include <array>

#include "config/field_tables.h"
#include "config/tls.h"

namespace relay::sqs {

inline constexpr std::array kOwnQueueFields = {
    config::Field{.name = "queue_url",
                  .meaning = "the queue's URL; a name that ends in .fifo is a FIFO queue",
                  .required = true},
    config::Field{.name = "region",
                  .meaning = "AWS region; the default is what queue_url, the environment or the "
                             "profile says"},
    config::Field{.name = "endpoint",
                  .meaning = "where requests go instead of the host of queue_url: "
                             "http://host:port"},
    config::Field{.name = "profile",
                  .meaning = "profile of the shared credential files; the default is AWS_PROFILE"},
    config::Field{.name = "access_key_id",
                  .meaning = "access key; the default is the usual chain: environment, shared "
                             "files, web identity, container, instance",
                  .secret = true},
    config::Field{
        .name = "secret_access_key", .meaning = "secret of access_key_id", .secret = true},
    config::Field{.name = "session_token", .meaning = "token of temporary keys", .secret = true},
    config::Field{.name = "timeout",
                  .type = config::FieldType::duration,
                  .default_text = "10s",
                  .meaning = "how long a request may take",
                  .min = 0.01,
                  .max = 3600},
    config::Field{.name = "connect_timeout",
                  .type = config::FieldType::duration,
                  .default_text = "5s",
                  .meaning = "how long resolving the name and connecting may take",
                  .min = 0.01,
                  .max = 3600},
};

/// The options that sink and source share.
inline constexpr auto kQueueFields = config::joined(kOwnQueueFields, config::kTlsFields);

}  // namespace relay::sqs
