#!/usr/bin/perl
# doc/reference.md's table of errors has all SQLSTATEs that src/pg raises, by their names, and that
# the engine and what it is made of send, as text; and no other.
#
# Usage: test/structure/errors.pl [--root DIRECTORY]
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;

# Looked for in what others have raised, or turned into another code before anybody sees it.
my %only_read = map { $_ => 1 } qw(ADMIN_SHUTDOWN CONNECTION_FAILURE TRANSACTION_ROLLBACK
	T_R_SERIALIZATION_FAILURE TO_CATEGORY);

my $root = abs_path(dirname(__FILE__) . "/../..");
while (my $option = shift)
{
	if    ($option eq '--root')    { $root = shift; }
	elsif ($option eq '--objects') { shift; }
	else                           { die "unknown option \"$option\"\n"; }
}
chdir $root or die "$root: $!\n";

sub slurp
{
	my ($path) = @_;

	open(my $file, '<', $path) or die "$path: $!\n";
	local $/;
	return <$file>;
}

my $headers = `\${PG_CONFIG:-pg_config} --includedir-server`;
chomp $headers;
my %code = map { s/[^\w]//gr } slurp("$headers/utils/errcodes.h") =~
	/^#define ERRCODE_(\w+) MAKE_SQLSTATE\(([^)]*)\)/gm;

my %raised;
foreach my $path (split ' ', `find src -name '*.[ch]' | LC_ALL=C sort`)
{
	my $text = slurp($path);

	if ($path =~ m{^src/pg/})
	{
		push @{ $raised{25006} }, $path if $text =~ /\bPreventCommandIfReadOnly\(/;
		foreach my $name (grep { !$only_read{$_} } $text =~ /\bERRCODE_(\w+)/g)
		{
			push @{ $raised{ $code{$name} // "$name, which there is not" } }, $path;
		}
	}
	else
	{
		push @{ $raised{$1} }, $path while $text =~ /"((?:[0-5]\d|2B|2D|XX)[0-9A-Z]{3})"/g;
	}
}
delete $raised{20000};		# BICYCLE_SPIN_COUNT, which is none

my ($table) = slurp('doc/reference.md') =~ /^\| SQLSTATE \| \|\n(.*?)\n\n/ms;
my %documented = map { $_ => 1 } map { /\b([0-9A-Z]{5})\b/g } ($table // '') =~ /^\|([^|]*)\|/gm;
my $failed = 0;
foreach my $code (sort keys %raised)
{
	next if $documented{$code};
	print "FAILED: doc/reference.md lacks $code, which $raised{$code}[0] raises\n";
	$failed++;
}
foreach my $code (sort keys %documented)
{
	next if $raised{$code};
	print "FAILED: doc/reference.md has $code, which nothing raises\n";
	$failed++;
}
printf "%d SQLSTATEs, %d documented\n", scalar keys %raised, scalar keys %documented;
exit($failed || keys %raised < 20 ? 1 : 0);
