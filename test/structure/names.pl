#!/usr/bin/perl
# Is each name defined in one file only?
#
# Usage: test/structure/names.pl [--root DIRECTORY]
#
# Looks in src/ and kernels/ for functions (static ones too), structs, unions, enums and typedefs
# that two files define, and for files of one name in two folders. main() may be twice. What a
# .inc.h file defines by macros is instantiated by those who include it, and is not looked at.
#
# And whether doc/architecture.md names, as `name()`, functions that there are.
#
# It relies on the format that clang-format keeps: a definition's name begins its line.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;

my $root = abs_path(dirname(__FILE__) . "/../..");
while (my $option = shift)
{
	if    ($option eq '--root')  { $root = shift; }
	elsif ($option eq '--objects') { shift; }
	else                         { die "unknown option \"$option\"\n"; }
}
chdir $root or die "$root: $!\n";

sub type_line { return $_[0] =~ /^\w[\w\s*]*$/; }

my (%functions, %types, %files);
foreach my $path (split ' ', `find src kernels -type f | LC_ALL=C sort`)
{
	next unless $path =~ /\.(c|h|cu|cuh)$/;
	(my $noun = basename($path)) =~ s/\..*//;
	$files{$noun}{ dirname($path) } = 1;
	open my $in, '<', $path or die "$path: $!\n";
	my @lines = <$in>;
	close $in;
	for my $i (0 .. $#lines)
	{
		local $_ = $lines[$i];

		# A function: its type in the line before, a brace before any semicolon.
		if (/^([a-z_]\w*)\s*\(/ && type_line($lines[ $i - 1 ]))
		{
			my ($name) = /^(\w+)/;
			my $at = $i;
			$at++ while $at < $#lines && $lines[$at] !~ /;|^\{/;
			$functions{$name}{$path} = 1 if $lines[$at] =~ /^\{/;
		}
		elsif (/^KERNEL\((\w+)/)
		{
			$functions{$1}{$path} = 1;
		}
		elsif (/^(?:typedef )?(?:struct|union|enum) (\w+)$/ && $lines[ $i + 1 ] =~ /^\{/)
		{
			$types{ (/(\w+)$/)[0] }{$path} = 1;
		}
		elsif (/^\} (\w+);/ || /^typedef .*\(\*(\w+)\)\(/)
		{
			$types{$1}{$path} = 1;
		}
	}
}
delete $functions{main};

my %found;
foreach my $kind ([ function => \%functions ], [ type => \%types ], [ file => \%files ])
{
	my ($what, $names) = @$kind;
	foreach my $name (sort keys %$names)
	{
		my @in = sort keys %{ $names->{$name} };
		$found{"$what $name"} = "@in" if @in > 1;
	}
}
printf "%d functions, %d types, %d nouns of files; defined twice: %d\n",
  scalar keys %functions, scalar keys %types, scalar keys %files, scalar keys %found;
if (open my $in, '<', "doc/architecture.md")
{
	while (my $line = <$in>)
	{
		exists $functions{$_} or $found{"function $_"} = "no file; doc/architecture.md:$."
		  foreach $line =~ /`(\w+)\(\)`/g;
	}
	close $in;
}
print "FAILED: $_ is defined in $found{$_}\n" foreach sort keys %found;
print %found ? "names: " . keys(%found) . " failed\n" : "names: ok\n";
exit(%found ? 1 : 0);
