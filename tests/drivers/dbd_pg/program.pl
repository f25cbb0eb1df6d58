#!/usr/bin/perl
# DBD::Pg over libpq: server-side preparation at the first execution, its own names, COPY, notifications, asynchronous queries.

use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:pg_types :async);
use POSIX qw(_exit);

binmode(STDERR, ':encoding(UTF-8)');

my ($CLIENTS, $ROUNDS) = (6, 12);
my ($user, $password, $host, $port, $database) = $ENV{DATABASE_URL} =~ m{^postgres(?:ql)?://([^:@]+)(?::([^@]*))?@([^:/]+):(\d+)/(\w+)}
    or die 'DATABASE_URL';

sub connected {
    my ($options, %attributes) = @_;
    return DBI->connect("dbi:Pg:dbname=$database;host=$host;port=$port" . ($options // ''), $user, $password,
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_enable_utf8 => 1, %attributes });
}

sub value { my ($dbh, $sql, @parameters) = @_; return scalar $dbh->selectrow_array($sql, undef, @parameters) }

sub equal {
    my ($expected, $actual) = @_;
    $_ = defined $_ ? (ref $_ eq 'ARRAY' ? '[' . join(',', map { ref $_ eq 'ARRAY' ? '[' . join(',', map { $_ // 'null' } @$_) . ']' : $_ // 'null' } @$_) . ']' : "$_") : 'undef'
        for $expected, $actual;
    die "expected $expected, got $actual at line " . (caller)[2] . "\n" if $expected ne $actual;
}

sub fails {
    my ($dbh, $state, $body) = @_;
    my $done = eval { $body->(); 1 };
    die "no $state was raised at line " . (caller)[2] . "\n" if $done;
    equal($state, $dbh->state);
}

my @checks = (
    connects => sub {
        for my $n (1 .. 4) {
            my $dbh = connected();
            equal(1, $dbh->ping ? 1 : 0);
            equal($n + 1, value($dbh, 'select ?::int + 1', $n));
            $dbh->disconnect;
        }
    },

    inserts_and_reads => sub {
        my $dbh = connected();
        $dbh->do('drop table if exists drv_pl_items');
        $dbh->do('create table drv_pl_items (id serial primary key, name text, price numeric)');
        my $insert = $dbh->prepare('insert into drv_pl_items (name, price) values (?, ?) returning id');
        for my $n (0 .. 19) {
            $insert->execute("item $n", $n / 4);
            equal($n + 1, ($insert->fetchrow_array)[0]);
        }
        equal([7, 'item 6', '1.5'], $dbh->selectrow_arrayref('select id, name, price from drv_pl_items where id = ?', undef, 7));
        equal(10, $dbh->do('delete from drv_pl_items where id > ?', undef, 10));
        my @columns = map { $_->[3] } @{ $dbh->column_info(undef, 'public', 'drv_pl_items', undef)->fetchall_arrayref };
        equal(['id', 'name', 'price'], \@columns);
        my $named = $dbh->prepare('select name from drv_pl_items where id = :id', { pg_placeholder_nocolons => 0 });
        $named->bind_param(':id', 3);
        $named->execute;
        equal('item 2', ($named->fetchrow_array)[0]);
        $_->finish for $insert, $named;
        $dbh->do('drop table drv_pl_items');
        $dbh->disconnect;
    },

    carries_values => sub {
        my $dbh = connected();
        my $bytes = join '', map { chr } 0 .. 255;
        my $sth = $dbh->prepare('select ?::bytea, ?::int4[], ?::text, ?::text, ?::jsonb, ?::timestamptz at time zone \'UTC\', ?::bool');
        $sth->bind_param(1, $bytes, { pg_type => PG_BYTEA });
        $sth->bind_param(2, [1, undef, 3]);
        $sth->bind_param(3, undef);
        $sth->bind_param(4, "snow \x{2603} 'quotes' \\");
        $sth->bind_param(5, '{"a": [1, null]}');
        $sth->bind_param(6, '2024-02-29 12:34:56.789012+00');
        $sth->bind_param(7, 1, { pg_type => PG_BOOL });
        for (1 .. 5) {
            $sth->execute;
            my $row = $sth->fetchrow_arrayref;
            equal(unpack('H*', $bytes), unpack('H*', $row->[0]));
            equal([1, undef, 3], $row->[1]);
            equal([undef, "snow \x{2603} 'quotes' \\", '{"a": [1, null]}', '2024-02-29 12:34:56.789012', 1], [@$row[2 .. 6]]);
        }
        $sth->finish;
        $dbh->disconnect;
    },

    commits_and_rolls_back => sub {
        my ($dbh, $other) = (connected(undef, AutoCommit => 0), connected());
        $other->do('drop table if exists drv_pl_tx');
        $other->do('create table drv_pl_tx (n int primary key)');
        $dbh->do('insert into drv_pl_tx values (1)');
        equal(0, value($other, 'select count(*) from drv_pl_tx'));
        $dbh->commit;
        $dbh->do('insert into drv_pl_tx values (2)');
        $dbh->rollback;
        fails($dbh, '23505', sub { $dbh->do('insert into drv_pl_tx values (?)', undef, 1) });
        fails($dbh, '25P02', sub { $dbh->do('select 1') });
        $dbh->rollback;
        $dbh->do('insert into drv_pl_tx values (3)');
        $dbh->pg_savepoint('a');
        fails($dbh, '23505', sub { $dbh->do('insert into drv_pl_tx values (3)') });
        $dbh->pg_rollback_to('a');
        $dbh->do('insert into drv_pl_tx values (4)');
        $dbh->pg_release('a');
        $dbh->commit;
        equal('1,3,4', value($other, q{select string_agg(n::text, ',' order by n) from drv_pl_tx}));
        $other->begin_work;
        $other->do('drop table drv_pl_tx');
        $other->commit;
        $_->disconnect for $dbh, $other;
    },

    prepares => sub {
        my ($dbh, $other) = (connected(), connected());
        my ($one, $two) = ($dbh->prepare('select ?::int * 2'), $other->prepare('select ?::int * 3'));
        my $now = $dbh->prepare('select ?::int * 5', { pg_prepare_now => 1 });
        for my $n (1 .. 12) {
            for ([$one, 2], [$two, 3], [$now, 5]) {
                my ($sth, $factor) = @$_;
                $sth->execute($n);
                equal($factor * $n, ($sth->fetchrow_array)[0]);
                $sth->finish;
            }
            fails($dbh, '22012', sub { value($dbh, 'select 1 / ?::int', 0) }) if $n % 4 == 0;
        }
        undef $now; # DEALLOCATE
        undef $one;
        my $plain = $dbh->prepare('select ?::int', { pg_server_prepare => 0 });
        $plain->execute(4);
        equal(4, ($plain->fetchrow_array)[0]);
        $plain->finish;
        $_->disconnect for $dbh, $other;
    },

    reads_with_cursors => sub {
        my $dbh = connected(undef, AutoCommit => 0);
        $dbh->do('declare drv_c cursor for select n from generate_series(1, 100) n');
        equal(30, scalar @{ $dbh->selectall_arrayref('fetch 30 from drv_c') });
        equal(70, scalar @{ $dbh->selectall_arrayref('fetch all from drv_c') });
        $dbh->do('close drv_c');
        $dbh->do('declare drv_h cursor with hold for select n from generate_series(1, 5) n');
        $dbh->commit;
        equal(5, scalar @{ $dbh->selectall_arrayref('fetch all from drv_h') });
        $dbh->do('close drv_h');
        $dbh->commit;
        $dbh->disconnect;
    },

    copies => sub {
        my $dbh = connected();
        $dbh->do('drop table if exists drv_pl_copy');
        $dbh->do('create table drv_pl_copy (n int primary key, t text)');
        $dbh->do('copy drv_pl_copy from stdin');
        $dbh->pg_putcopydata("$_\trow $_\n") for 1 .. 5000;
        $dbh->pg_putcopyend;
        $dbh->do('copy drv_pl_copy to stdout');
        my ($count, $line) = (0, '');
        $count++ while $dbh->pg_getcopydata($line) >= 0;
        equal(5000, $count);
        $dbh->do('copy drv_pl_copy from stdin');
        fails($dbh, '23505', sub { $dbh->pg_putcopydata("1\tagain\n"); $dbh->pg_putcopyend });
        equal(5000, value($dbh, 'select count(*) from drv_pl_copy'));
        $dbh->do('drop table drv_pl_copy');
        $dbh->disconnect;
    },

    notifies => sub {
        my ($listener, $sender) = (connected(), connected());
        $listener->do('listen drv_pl_channel');
        $sender->do(q{notify drv_pl_channel, 'hello'});
        my $note;
        for (1 .. 200) {
            last if $note = $listener->pg_notifies;
            select undef, undef, undef, 0.05;
        }
        equal(['drv_pl_channel', 'hello'], [@$note[0, 2]]);
        my @notices;
        local $SIG{__WARN__} = sub { push @notices, @_ };
        $sender->{PrintWarn} = 1;
        $sender->do(q{do $$ begin raise notice 'drv says hello'; end $$});
        equal(1, scalar grep { /drv says hello/ } @notices);
        $_->disconnect for $listener, $sender;
    },

    cancels => sub {
        my $dbh = connected();
        for (1 .. 3) {
            $dbh->do('select pg_sleep(30)', { pg_async => PG_ASYNC });
            select undef, undef, undef, 0.1;
            equal(1, $dbh->pg_cancel ? 1 : 0);
            equal(1, value($dbh, 'select 1'));
        }
        $dbh->do('set statement_timeout = 50');
        fails($dbh, '57014', sub { $dbh->do('select pg_sleep(30)') });
        $dbh->disconnect;
    },

    keeps_settings => sub {
        my $dbh = connected(q{;application_name='drv perl';options='-c statement_timeout=12345'});
        equal('drv perl', value($dbh, 'show application_name'));
        equal('12345ms', value($dbh, 'show statement_timeout'));
        $dbh->do(q{set timezone = 'Asia/Tokyo'});
        equal('Asia/Tokyo', value($dbh, 'show timezone')) for 1 .. 5;
        $dbh->do('discard all');
        equal('12345ms', value($dbh, 'show statement_timeout'));
        $dbh->disconnect;
    },

    reads_large_results => sub {
        my $dbh = connected();
        my $rows = $dbh->selectall_arrayref(q{select n, repeat('x', 50) from generate_series(1, 100000) n});
        equal([100000, [100000, 'x' x 50]], [scalar @$rows, $rows->[-1]]);
        equal(2_000_000, length value($dbh, 'select ?::text', 'y' x 2_000_000));
        $dbh->disconnect;
    },

    shares_servers => sub {
        my $dbh = connected();
        $dbh->do('drop table if exists drv_pl_swap');
        $dbh->do('create table drv_pl_swap (client int, n int)');
        my @children;
        for my $number (0 .. $CLIENTS - 1) {
            my $child = fork // die;
            if (!$child) {
                $dbh->{InactiveDestroy} = 1;
                my $done = eval {
                    my $own = connected(";application_name='drv swap $number'", AutoCommit => 0);
                    $own->do('set statement_timeout = ' . (50001 + $number));
                    $own->commit;
                    my $insert = $own->prepare('insert into drv_pl_swap values (?, ?)');
                    my $select = $own->prepare("select $number * 1000 + ?::int, current_setting('statement_timeout'), current_setting('application_name')");
                    for my $n (0 .. $ROUNDS - 1) {
                        $insert->execute($number, $n);
                        $select->execute($n);
                        equal([$number * 1000 + $n, (50001 + $number) . 'ms', "drv swap $number"], $select->fetchall_arrayref->[0]);
                        $n % 4 == 3 ? $own->rollback : $own->commit;
                    }
                    $own->disconnect;
                    1;
                };
                warn $@ if !$done;
                _exit($done ? 0 : 1);
            }
            push @children, $child;
        }
        my $failed = 0;
        for (@children) { waitpid $_, 0; $failed++ if $? }
        die "$failed clients failed\n" if $failed;
        equal($CLIENTS * $ROUNDS * 3 / 4, value($dbh, 'select count(*) from drv_pl_swap'));
        $dbh->do('drop table drv_pl_swap');
        $dbh->disconnect;
    },

    reconnects => sub {
        my $dbh = connected();
        my $done = eval { $dbh->do('select pg_terminate_backend(pg_backend_pid())'); $dbh->do('select 1'); 1 };
        die "the server is gone and nothing was said\n" if $done;
        eval { $dbh->disconnect };
        $dbh = connected();
        equal(1, value($dbh, 'select 1'));
        $dbh->disconnect;
    },
);

my (@results, $failed);
while (my ($name, $check) = splice @checks, 0, 2) {
    next if @ARGV && !grep { $_ eq $name } @ARGV;
    my $passed = eval {
        local $SIG{ALRM} = sub { die "not over after 60 s\n" };
        alarm 60;
        $check->();
        alarm 0;
        1;
    };
    print STDERR "--- DBD::Pg: $name: $@\n" if !$passed;
    $failed = 1 if !$passed;
    push @results, qq("$name": ) . ($passed ? 'true' : 'false');
}
print qq({"driver": "DBD::Pg", "version": "$DBD::Pg::VERSION", "checks": {), join(', ', @results), "}}\n";
exit($failed ? 1 : 0);
