insert into users (email, email_verified) values ('user@example.com', true);
